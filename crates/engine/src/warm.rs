//! Images that are fetched before anyone asks: a few steps at a time, platform by platform, and again from the first one
//! when their tags are no longer believed.

use entrepot_core::config::{Warm, WarmImage};
use entrepot_core::failure::{Failure, Reason};
use entrepot_core::time::Wall;
use entrepot_core::upstream::What;
use entrepot_oci::manifest::{Descriptor, Kind, Manifest, Platform};
use entrepot_oci::range::ByteSpan;
use entrepot_oci::{Digest, Reference};
use serde::{Deserialize, Serialize};

use crate::Engine;
use crate::job::{Job, Place};
use crate::manifest::Found;
use crate::ports::{Blobs, Claim, Host, Stored};

/// Blobs of one manifest that are looked after at most; no image that runs has as many.
const MAX_BLOBS: usize = 1000;

/// How far warming has come. It outlives whoever warms; one that belongs to another configuration begins anew.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Progress {
    /// Images of the configuration that were begun, in its order.
    begun: usize,
    /// The last of them.
    image: String,
    /// Its manifests that are still to be read.
    manifests: Vec<Digest>,
    /// Their blobs that are still to be looked for.
    blobs: Vec<Digest>,
    /// All images are done, and nothing is to be done until then.
    rest: Option<Wall>,
}

/// What was done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Round {
    pub steps: usize,
    /// Fills that were begun.
    pub fills: usize,
    /// What could not be done, each with its image. It is tried again the next time that the images are gone through.
    pub failures: Vec<String>,
}

/// One image for all of its platforms.
struct Target<'c> {
    image: &'c WarmImage,
    platforms: &'c [Platform],
}

impl<H: Host> Engine<H> {
    /// Goes `steps` on at most: a step reads one manifest, or sees to one blob. What is held is asked of upstream only as
    /// far as a client's pull would ask. A source that has few pulls left is not warmed.
    pub async fn warm(&self, progress: &mut Progress, steps: usize) -> Round {
        let config = self.host.config();
        let targets = targets(&config.edge.warm);
        let mut round = Round::default();
        if progress.rest.is_some_and(|rest| self.host.now().wall < rest) {
            return round;
        }
        progress.rest = None;
        progress.fit(&targets);
        while round.steps < steps {
            let is_begun = !progress.manifests.is_empty() || !progress.blobs.is_empty();
            if !is_begun && !progress.begin(&targets) {
                *progress = Progress {
                    rest: Some(self.host.now().wall.plus(config.cache.manifest_ttl)),
                    ..Progress::default()
                };
                break;
            }
            round.steps += 1;
            let Some(target) = progress.begun.checked_sub(1).and_then(|at| targets.get(at)) else { break };
            match self.step(target, progress, !is_begun).await {
                Ok(fills) => round.fills += fills,
                Err(failure) => round.failures.push(format!("{}: {failure}", target.spelt())),
            }
        }
        round
    }

    /// Errors: upstream does not show it, or cannot be asked.
    async fn step(
        &self,
        target: &Target<'_>,
        progress: &mut Progress,
        first: bool,
    ) -> Result<usize, Failure> {
        let config = self.host.config();
        let resolved = entrepot_core::resolve::resolve(&config, "", None, None, &target.image.name)?;
        if !resolved.source.mirror {
            return Ok(0);
        }
        if self.host.state(|state| state.budget_low(&resolved.source, self.host.now())) {
            (progress.manifests, progress.blobs) = Default::default();
            return Err(Failure::new(Reason::BudgetExhausted, "few pulls are left; they are for clients"));
        }
        let place = self.own_place(&resolved.source, &resolved.repository).await;
        if first {
            let found = match &target.image.reference {
                Reference::Digest(digest) => self.by_digest(&place, *digest, false).await?,
                Reference::Tag(tag) => self.by_tag(&config, &place, tag, false).await?,
            };
            let manifest = read(&found)?;
            if manifest.kind == Kind::Index {
                progress.manifests = children(&manifest, target.platforms);
            } else {
                progress.blobs = blobs(&manifest);
            }
        } else if let Some(digest) = progress.blobs.pop() {
            return self.see_to(&place, digest).await.map(usize::from);
        } else if let Some(digest) = progress.manifests.pop() {
            progress.blobs = blobs(&read(&self.by_digest(&place, digest, false).await?)?);
        }
        Ok(0)
    }

    /// Whether a fill was begun.
    async fn see_to(&self, place: &Place, digest: Digest) -> Result<bool, Failure> {
        if let Some(stored) = self.host.blobs().stored(digest).await {
            if self.shown(place, digest).await.is_none() {
                self.whether_shown(place, digest).await?;
            }
            // A use, though nothing is read: what is to stay warm must not be what was used longest ago.
            let whole = ByteSpan::whole(stored.size());
            drop(stored.body(whole));
            return Ok(false);
        }
        self.absent(place, &What::Blob(digest)).await?;
        match self.host.blobs().claim(digest, &place.key("fill", "")).await {
            Claim::Yours(ticket, _) | Claim::Apart(ticket) => {
                self.host.start(Job::Fill { place: place.clone(), digest, ticket });
                Ok(true)
            }
            Claim::Stored(_) | Claim::Filling { .. } => Ok(false),
        }
    }
}

impl Progress {
    /// Begins anew where the configuration has changed.
    fn fit(&mut self, targets: &[Target<'_>]) {
        let Some(last) = self.begun.checked_sub(1) else { return };
        if targets.get(last).is_none_or(|target| target.spelt() != self.image) {
            *self = Progress::default();
        }
    }

    /// Begins the next image. `false`: there is none.
    fn begin(&mut self, targets: &[Target<'_>]) -> bool {
        let Some(target) = targets.get(self.begun) else { return false };
        self.begun += 1;
        self.image = target.spelt();
        true
    }
}

impl Target<'_> {
    fn spelt(&self) -> String {
        let WarmImage { name, reference } = self.image;
        match reference {
            Reference::Tag(tag) => format!("{name}:{tag}"),
            Reference::Digest(digest) => format!("{name}@{digest}"),
        }
    }
}

fn targets(groups: &[Warm]) -> Vec<Target<'_>> {
    groups
        .iter()
        .flat_map(|group| group.images.iter().map(|image| Target { image, platforms: &group.platforms }))
        .collect()
}

fn read(found: &Found) -> Result<Manifest, Failure> {
    let bytes = found.bytes.as_deref().unwrap_or_default();
    Manifest::parse(bytes, Some(found.media_type.as_str()))
        .map_err(|error| Failure::new(Reason::UpstreamManifestInvalid, error.to_string()))
}

/// The images for `platforms`, the last platform first, as they are taken from the end. A platform without a variant takes
/// all of them. What an index lists besides images is left out.
fn children(index: &Manifest, platforms: &[Platform]) -> Vec<Digest> {
    let mut wanted: Vec<Digest> = Vec::new();
    for platform in platforms.iter().rev() {
        let runs_on = |child: &&Descriptor| {
            child.media_type.is_manifest()
                && child.platform.as_deref().is_some_and(|its| {
                    its.os == platform.os
                        && its.architecture == platform.architecture
                        && (platform.variant.is_none() || its.variant == platform.variant)
                })
        };
        for child in index.children.iter().filter(runs_on) {
            if !wanted.contains(&child.digest) {
                wanted.push(child.digest);
            }
        }
    }
    wanted
}

fn blobs(manifest: &Manifest) -> Vec<Digest> {
    let described = manifest.config.iter().chain(&manifest.layers);
    described.map(|described| described.digest).take(MAX_BLOBS).collect()
}
