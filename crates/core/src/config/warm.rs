//! What only the edge needs: its cache in front, its schedule, and what it keeps warm.

use std::time::Duration;

use entrepot_oci::manifest::Platform;
use entrepot_oci::name::Repository;

use super::model::{Edge, Warm, WarmImage};
use super::read::{Found, Reader, Section};
use super::schema;
use super::source::Draft;
use super::value::Schedule;

/// KV forgets nothing sooner.
const SHORTEST_ERROR_TTL: Duration = Duration::from_secs(60);

pub(super) fn edge(reader: &mut Reader<'_>, proxy: &Section<'_>, drafts: &[Draft]) -> Edge {
    let section = proxy.section_or_defaults(reader, "edge", &schema::EDGE);
    let front_ttl = section.get::<Duration>(reader, "front_ttl").unwrap_or_default();
    let error_ttl = section.get::<Duration>(reader, "error_ttl").unwrap_or_default();
    if error_ttl < SHORTEST_ERROR_TTL && reader.problems.is_empty() {
        reader.problem(
            &section.at("error_ttl"),
            "KV keeps nothing for less than a minute",
            "write 1m or more",
        );
    }
    let cron = section.get::<Schedule>(reader, "cron").map(|schedule| schedule.0).unwrap_or_default();
    let sections = section.sections(reader, "warm");
    let warm = sections.iter().map(|section| warm(reader, section, drafts)).collect();
    Edge { front_ttl, error_ttl, cron, warm }
}

fn warm(reader: &mut Reader<'_>, section: &Section<'_>, drafts: &[Draft]) -> Warm {
    let images = section.list::<WarmImage>(reader, "images").unwrap_or_default();
    for image in &images {
        check(reader, image, drafts);
    }
    let platforms = section.list::<Platform>(reader, "platforms").unwrap_or_default();
    Warm {
        images: images.into_iter().map(|found| found.value).collect(),
        platforms: platforms.into_iter().map(|found| found.value).collect(),
    }
}

/// The registry must be one that a source answers for, and what follows a repository there.
fn check(reader: &mut Reader<'_>, image: &Found<WarmImage>, drafts: &[Draft]) {
    let (registry, repository) = image.value.name.split_first();
    let asked = registry.to_ascii_lowercase();
    if !drafts.iter().any(|draft| draft.names.iter().any(|name| name.value == asked)) {
        let message = format!("no source has the registry `{registry}`");
        let remedy = "begin the image with one of a source's `names`, or add the source";
        return reader.problem(&image.at, message, remedy);
    }
    if let Err(error) = repository.unwrap_or_default().parse::<Repository>() {
        reader.problem(
            &image.at,
            format!("there is no such repository: {error}"),
            "write the image's name in full",
        );
    }
}
