//! Lists of tags and of referrers: believed for a short while, kept for when upstream is away.

use std::time::Duration;

use entrepot_core::admit::Incoming;
use entrepot_core::answer::{Answer, Served, Trace, Verdict};
use entrepot_core::config::Config;
use entrepot_core::failure::{Failure, Reason};
use entrepot_core::freshness;
use entrepot_core::list::{self, ListAsk, ListRecord};
use entrepot_core::upstream::{SmallFault, Verb};
use entrepot_oci::name::Tag;
use entrepot_oci::{Digest, Reference};

use crate::job::{Landed, Place, Work};
use crate::ports::{Host, Http};
use crate::reply::Facts;
use crate::{Engine, missed};

impl<H: Host> Engine<H> {
    pub(crate) async fn list(
        &self,
        config: &Config,
        call: &Incoming,
        ask: ListAsk,
        facts: &mut Facts,
    ) -> Result<Answer, Failure> {
        let place = self.place(call, &ask.what()).await?;
        let held = self.held_list(&place, &ask).await;
        let fresh =
            held.as_ref().is_some_and(|held| held.left(&config.cache, self.host.now().wall).is_some());
        let (record, trace, warning) = match held {
            Some(held) if fresh => (held, Trace::new(Verdict::Hit), None),
            held => match self.newest(&place, &ask).await {
                Ok((record, shared)) => (record, missed(&place.source).joined(shared), None),
                Err(failure) => {
                    let now = self.host.now().wall;
                    let stale = held.and_then(|held| {
                        Some((held.stale_after(&failure, place.credentialed, &config.cache, now)?, held))
                    });
                    let Some((kind, held)) = stale else {
                        return Err(failure);
                    };
                    (held, Trace::new(Verdict::Stale), Some(freshness::warning(Some(kind))))
                }
            },
        };
        facts.served(&trace);
        let now = self.host.now().wall;
        let served = Served {
            age: Some(now.since(record.checked)),
            warning,
            credentialed: place.credentialed || !config.access.anonymous,
            ns: call.resolved.ns.as_deref(),
            ..Served::new(trace)
        };
        let left = record.left(&config.cache, now).unwrap_or(Duration::ZERO);
        Ok(record.answer(call, &ask, left, &served))
    }

    async fn held_list(&self, place: &Place, ask: &ListAsk) -> Option<ListRecord> {
        if !place.source.mirror {
            return None;
        }
        self.load(&place.shared_key("list", ask.key())).await
    }

    /// What an earlier flight brought between this request's look at the records and its own flight.
    pub(crate) async fn listed(&self, place: &Place, ask: &ListAsk) -> Option<Result<Landed, Failure>> {
        if let Err(failure) = self.absent(place, &ask.what()).await {
            return Some(Err(failure));
        }
        let held = self.held_list(place, ask).await?;
        held.left(&self.host.config().cache, self.host.now().wall)?;
        Some(Ok(Landed::List(held)))
    }

    /// The list as upstream has it, and whether another request fetched it.
    async fn newest(&self, place: &Place, ask: &ListAsk) -> Result<(ListRecord, bool), Failure> {
        let flown = self.fly(Work::List(place.clone(), ask.clone())).await;
        match flown.landed? {
            Landed::List(record) => Ok((record, flown.shared)),
            _ => Err(Self::unexpected("a list")),
        }
    }

    pub(crate) async fn fetch_list(&self, place: &Place, ask: &ListAsk) -> Result<Landed, Failure> {
        let fetched = match (self.fetch_page(place, ask).await, ask) {
            (Err(failure), ListAsk::Referrers { digest, artifact_type, .. })
                if failure.reason.is_absence() || failure.reason == Reason::UpstreamUnsupported =>
            {
                // No such API there: the list may stand under a tag. If it does not, the client hears 404 and looks for
                // the tag itself; an empty list would claim that there are none (wire behaviour of cosign).
                self.by_tag_schema(place, digest, artifact_type.as_deref()).await
            }
            (fetched, _) => fetched,
        };
        match &fetched {
            Ok(record) if place.source.mirror => {
                let keep = list::keep(&self.host.config().cache);
                self.save(place.shared_key("list", ask.key()), record, Some(keep)).await;
            }
            Ok(_) => {}
            Err(failure) => self.remember_absence(place, &ask.what(), failure).await,
        }
        fetched.map(Landed::List)
    }

    async fn fetch_page(&self, place: &Place, ask: &ListAsk) -> Result<ListRecord, Failure> {
        let (reply, body) = self.ask(place, ask.what(), Verb::Get).await?;
        let body = body.ok_or_else(|| Self::unexpected("a GET"))?;
        let max = ask.max_body();
        let bytes = self.host.http().read_small(body, max).await.map_err(|fault| match fault {
            SmallFault::TooLarge => Failure::new(
                Reason::TooLarge,
                format!("upstream's list has more than {max} bytes; ask for pages with n="),
            ),
            SmallFault::Broken => {
                Failure::new(Reason::UpstreamUnreachable, "upstream broke off in the middle of the list")
            }
        })?;
        ListRecord::read(ask, &reply, &bytes, self.host.now().wall)
    }

    async fn by_tag_schema(
        &self,
        place: &Place,
        digest: &Digest,
        artifact_type: Option<&str>,
    ) -> Result<ListRecord, Failure> {
        let held = self.fetch(place, &Reference::Tag(Tag::for_referrers(digest))).await?;
        ListRecord::of_tag(&held.bytes, artifact_type, self.host.now().wall)
    }
}
