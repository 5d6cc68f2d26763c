//! Fills: the conversations that bring a blob, resumed where they break.
//!
//! One is enough where upstream is near. Over a long line there are several, each with a piece of the blob; whatever comes
//! in between, one goes on alone from what is there.

use std::ops::Range;

use entrepot_core::config::Source;
use entrepot_core::event::Event;
use entrepot_core::failure::{Failure, Reason};
use entrepot_core::integrity;
use entrepot_core::upstream::pieces::{self, FURTHER, Line, Pieces};
use entrepot_core::upstream::{Exchange, Fault, Origin, Reply, Verb, What};
use entrepot_oci::Digest;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;

use crate::Engine;
use crate::converse::Upstream;
use crate::job::Place;
use crate::ports::{Blobs, Filled, Host, Ticket};

/// A blob that is being filled.
struct Filling<'a, H: Host> {
    place: &'a Place,
    digest: Digest,
    ticket: &'a <H::Blobs as Blobs>::Ticket,
    size: Option<u64>,
    /// The registry that answered first.
    upstream: Origin,
}

/// An answer whose body is the blob's, or a piece of it.
type Opened<H> = (Reply, Option<Upstream<H>>);

/// One conversation and the piece that it is to bring.
struct Stream<'a, H: Host> {
    exchange: Exchange,
    wanted: Range<u64>,
    /// Its answer, where it has begun.
    opened: Option<Opened<H>>,
    #[expect(dead_code, reason = "held for as long as the conversation goes on")]
    further: Option<Further<'a, H>>,
}

/// How a conversation about a piece ended.
enum Ended {
    Whole,
    /// Bytes are missing; others may bring them.
    Short,
    /// No piece can be had, or taken.
    NoPieces,
    Fatal(Failure),
}

/// The permission to have a connection beside those that clients wait for.
pub(crate) struct Further<'a, H: Host> {
    engine: &'a Engine<H>,
    source: &'a Source,
}

impl<H: Host> Drop for Further<'_, H> {
    fn drop(&mut self) {
        self.engine.host.state(|state| state.give_back(self.source));
    }
}

impl<H: Host> Engine<H> {
    /// The filling job, to its end.
    pub(crate) async fn fill(&self, place: Place, digest: Digest, mut ticket: <H::Blobs as Blobs>::Ticket) {
        let source = &place.source.name;
        let sealed = match self.fill_all(&place, digest, &mut ticket).await {
            Ok(()) => ticket.seal().await,
            Err(failure) => {
                self.not_shown(&place, digest, &failure).await;
                ticket.fail(failure.clone());
                Err(failure)
            }
        };
        let (bytes, reason) = match &sealed {
            Ok(bytes) => (*bytes, None),
            Err(failure) => (0, Some(failure.reason)),
        };
        if reason == Some(Reason::DigestMismatch) {
            self.host.observe(Event::DigestMismatch { source: source.clone() });
        }
        self.host.observe(Event::FillEnded { source: source.clone(), bytes, reason });
    }

    async fn fill_all(
        &self,
        place: &Place,
        digest: Digest,
        ticket: &mut <H::Blobs as Blobs>::Ticket,
    ) -> Result<(), Failure> {
        let described = self.described_size(place, digest).await;
        let in_pieces = ticket.takes_pieces();
        let (mut exchange, opened) = self.open(place, digest, in_pieces, described).await?;
        let size = opened.0.size.or(described);
        if let Some(size) = size {
            integrity::blob_size(&digest, described, size)?;
        }
        // Upstream shows it in this repository, whatever becomes of the bytes. Their number is not known before all of
        // them are there: a length that turns out to be wrong must not answer a HEAD.
        self.remember_shown(place, digest, described).await;
        ticket.begin(size).await;
        let upstream = Origin::of(&opened.0.upstream);
        let filling = Filling { place, digest, ticket, size, upstream };
        match (exchange.until(), size) {
            (Some(end), Some(size)) => self.in_pieces(&filling, exchange, opened, end, size).await,
            _ => self.in_order(&filling, &mut exchange, opened, 0).await,
        }
    }

    /// Begins to ask for a blob of which `size` bytes are said to be. Where that may be worth it, only a first piece is
    /// asked for.
    async fn open(
        &self,
        place: &Place,
        digest: Digest,
        in_pieces: bool,
        size: Option<u64>,
    ) -> Result<(Exchange, Opened<H>), Failure> {
        let ask = self.wording(place, What::Blob(digest), Verb::Get, None).await?;
        let line = self.line(&Origin::of(&place.source.url));
        let first = size.filter(|_| in_pieces).and_then(|size| pieces::opening(&place.source, size, line));
        let mut exchange = match first {
            Some(first) => Exchange::opening(ask, first),
            None => Exchange::new(ask),
        };
        let opened = self.begin(&mut exchange).await?;
        let (reply, _) = &opened;
        let late = match (self.line(&Origin::of(&reply.upstream)), reply.size) {
            (Some(line), Some(found)) if in_pieces && size.is_none() => {
                pieces::reopening(&place.source, found, line)
            }
            _ => None,
        };
        let Some(first) = late else { return Ok((exchange, opened)) };
        drop(opened);
        let mut exchange = exchange.reopening(first);
        let opened = self.begin(&mut exchange).await?;
        Ok((exchange, opened))
    }

    /// Has several conversations bring a piece each, and another when they have brought it. `opened` brings the first one,
    /// which ends at byte `end`.
    async fn in_pieces(
        &self,
        filling: &Filling<'_, H>,
        exchange: Exchange,
        opened: Opened<H>,
        end: u64,
        size: u64,
    ) -> Result<(), Failure> {
        let source = &filling.place.source;
        let mut pieces = Pieces::new(size, end, self.line(&filling.upstream));
        // What later conversations begin with.
        let mut guide = exchange.rest(0);
        let mut running = FuturesUnordered::new();
        let first = Stream { exchange, wanted: 0..end, opened: Some(opened), further: None };
        running.push(self.bring(filling, first));
        loop {
            let line = self.line(&filling.upstream);
            while filling.ticket.takes_pieces() && pieces.want_another(running.len(), line) {
                let Some(further) = self.further(source, FURTHER) else { break };
                let Some(wanted) = pieces.take(line) else { break };
                let exchange = guide.piece(wanted.clone());
                running.push(
                    self.bring(filling, Stream { exchange, wanted, opened: None, further: Some(further) }),
                );
            }
            let Some((ended, stream)) = running.next().await else { break };
            match ended {
                Ended::Whole => {
                    guide = stream.exchange.rest(0);
                    if filling.ticket.takes_pieces()
                        && let Some(wanted) = pieces.take(line)
                    {
                        let exchange = guide.piece(wanted.clone());
                        running
                            .push(self.bring(filling, Stream { exchange, wanted, opened: None, ..stream }));
                    }
                }
                Ended::Short => pieces.give_back(stream.wanted, running.len()),
                Ended::NoPieces => break,
                Ended::Fatal(failure) => return Err(failure),
            }
        }
        drop(running);
        let received = filling.ticket.in_order().await;
        if received == size {
            return Ok(());
        }
        let mut exchange = guide.rest(received);
        let opened = self.begin(&mut exchange).await?;
        self.in_order(filling, &mut exchange, opened, received).await
    }

    /// One conversation about a piece, to the piece's end; what comes back of it is what is still wanted.
    async fn bring<'a>(&self, filling: &Filling<'_, H>, mut stream: Stream<'a, H>) -> (Ended, Stream<'a, H>) {
        let ended = match self.bring_all(filling, &mut stream).await {
            Ok(Filled::Whole) => Ended::Whole,
            Ok(Filled::Broken { .. } | Filled::InOrder) => Ended::NoPieces,
            Ok(Filled::TooLong) => Ended::Fatal(too_long(filling.digest)),
            Ok(Filled::Abandoned) => Ended::Fatal(abandoned()),
            Err(failure) if failure.reason == Reason::RangeInvalid => Ended::NoPieces,
            Err(_) => Ended::Short,
        };
        (ended, stream)
    }

    /// `Broken`: what comes now is not of this piece.
    async fn bring_all(
        &self,
        filling: &Filling<'_, H>,
        stream: &mut Stream<'_, H>,
    ) -> Result<Filled, Failure> {
        let Stream { exchange, wanted, opened, .. } = stream;
        let mut opened = match opened.take() {
            Some(opened) => opened,
            None => self.begin(exchange).await?,
        };
        loop {
            let (reply, body) = opened;
            let fits =
                exchange.until() == Some(wanted.end) && (reply.size.is_none() || reply.size == filling.size);
            let Some(body) = body.filter(|_| fits) else {
                return Ok(Filled::Broken { received: wanted.start, fault: Fault::BadFraming });
            };
            match self.pour(filling, wanted.clone(), reply.offset, body).await {
                Filled::Broken { received, fault } => {
                    wanted.start = received;
                    opened = self.resume(exchange, received, fault).await?;
                }
                filled => return Ok(filled),
            }
        }
    }

    /// Has one conversation bring all from byte `from` on.
    async fn in_order(
        &self,
        filling: &Filling<'_, H>,
        exchange: &mut Exchange,
        mut opened: Opened<H>,
        mut from: u64,
    ) -> Result<(), Failure> {
        loop {
            let (reply, body) = opened;
            if reply.size.is_some() && filling.size.is_some() && reply.size != filling.size {
                return Err(Failure::new(
                    Reason::SizeMismatch,
                    format!("upstream changed the size of {} in the middle of the download", filling.digest),
                ));
            }
            let body = body.ok_or_else(|| Self::unexpected("a GET"))?;
            let wanted = from..filling.size.unwrap_or(u64::MAX);
            match self.pour(filling, wanted, reply.offset, body).await {
                Filled::Whole => return Ok(()),
                Filled::Broken { received, fault } => {
                    from = received;
                    opened = self.resume(exchange, received, fault).await?;
                }
                Filled::TooLong => return Err(too_long(filling.digest)),
                Filled::InOrder => return Err(Self::unexpected("a fill in order")),
                Filled::Abandoned => return Err(abandoned()),
            }
        }
    }

    /// One body, and how fast it came.
    async fn pour(
        &self,
        filling: &Filling<'_, H>,
        wanted: Range<u64>,
        offset: u64,
        body: Upstream<H>,
    ) -> Filled {
        let (source, since) = (&filling.place.source, self.host.now().mono);
        let filled = filling.ticket.fill(wanted.clone(), offset, body, source.timeouts.stall).await;
        match filled {
            Filled::Whole => {
                let bytes = filling.size.map_or(0, |_| wanted.end - wanted.start);
                let time = self.host.now().mono.since(since);
                self.host.state(|state| state.brought(&filling.upstream, bytes, time));
            }
            Filled::Broken { received: offset, .. } => {
                self.host.observe(Event::Resumed { source: source.name.clone(), offset });
            }
            Filled::TooLong | Filled::InOrder | Filled::Abandoned => {}
        }
        filled
    }

    fn line(&self, registry: &Origin) -> Option<Line> {
        let now = self.host.now();
        self.host.state(|state| state.line(registry, now))
    }

    /// One more connection to `source` beside the first ones of fills, if there may be one, and `most` in all.
    pub(crate) fn further<'a>(&'a self, source: &'a Source, most: usize) -> Option<Further<'a, H>> {
        let granted = self.host.state(|state| state.take_further(source, most));
        granted.then(|| Further { engine: self, source })
    }
}

fn too_long(digest: Digest) -> Failure {
    let public = format!("upstream sends more bytes for {digest} than it announced");
    Failure::new(Reason::SizeMismatch, public)
}

fn abandoned() -> Failure {
    Failure::new(Reason::StoreFailed, "the disk cannot take the object, and nobody waits for it")
}
