//! Patterns that can never be reached, because an earlier one takes everything.

use super::model::TtlRule;
use super::read::{Found, Reader, spot};
use super::source::Draft;
use crate::pattern::NamePattern;

/// `images` of all sources, in the order of the file.
pub(super) fn images(reader: &mut Reader<'_>, drafts: &[Draft]) {
    let all: Vec<(&str, &Found<NamePattern>)> = drafts
        .iter()
        .flat_map(|draft| draft.images.iter().map(|found| (&*draft.source.name, found)))
        .collect();
    for (index, (_, later)) in all.iter().enumerate() {
        let first = all[..index].iter().find(|(_, earlier)| earlier.value.covers(&later.value));
        if let Some((owner, earlier)) = first {
            let message = format!(
                "`{}` is never reached: `{}` of the source `{owner}` ({}) matches first",
                later.value.as_str(),
                earlier.value.as_str(),
                spot(earlier.at.line)
            );
            reader.problem(&later.at, message, "remove one of the two, or put the narrower one first");
        }
    }
}

/// The rules of the cache.
pub(super) fn rules(reader: &mut Reader<'_>, rules: &[Found<TtlRule>]) {
    for (index, later) in rules.iter().enumerate() {
        let first = rules[..index].iter().enumerate().find(|(_, earlier)| {
            all_covered(&earlier.value.images, &later.value.images)
                && all_covered(&earlier.value.tags, &later.value.tags)
        });
        if let Some((number, earlier)) = first {
            let message = format!(
                "this rule is never reached: rules[{number}] ({}) matches first",
                spot(earlier.at.line)
            );
            reader.problem(&later.at, message, "remove one of the two, or put the narrower one first");
        }
    }
}

fn all_covered(earlier: &[NamePattern], later: &[NamePattern]) -> bool {
    !later.is_empty() && later.iter().all(|later| earlier.iter().any(|earlier| earlier.covers(later)))
}
