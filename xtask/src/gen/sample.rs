//! `docs/config.sample.yml`: every key, with what it means above it.

use entrepot_core::config::schema::{FILE, Key, Kind, Section};

use super::NOTE;

/// Where comments are wrapped, in characters.
const WIDTH: usize = 110;

pub(super) fn text() -> String {
    let mut lines = vec![
        "# Every key of the configuration, with an example. What is absent follows or has a default: a few lines are".into(),
        "# enough, see configuration.md. Keys behind a `#` exclude a neighbour, or are rarely wanted.".into(),
        format!("# {NOTE}"),
    ];
    section(&FILE, "", &mut lines);
    lines.join("\n") + "\n"
}

fn section(section: &Section, indent: &str, lines: &mut Vec<String>) {
    for key in section.keys {
        comment(key, indent, lines);
        let start = lines.len();
        entry(key, indent, lines);
        if key.aside {
            for line in &mut lines[start..] {
                *line = format!("{indent}# {}", &line[indent.len()..]);
            }
        }
    }
}

fn entry(key: &Key, indent: &str, lines: &mut Vec<String>) {
    match key.kind {
        Kind::Section(inner) => {
            lines.push(format!("{indent}{}:", key.name));
            section(inner, &format!("{indent}  "), lines);
        }
        Kind::Sections(inner) => {
            lines.push(format!("{indent}{}:", key.name));
            let deeper = format!("{indent}    ");
            let start = lines.len();
            section(inner, &deeper, lines);
            // The dash stands before the first key, below that key's comment.
            let first = lines[start..].iter().position(|line| !line.trim_start().starts_with('#'));
            if let Some(line) = first.and_then(|first| lines.get_mut(start + first)) {
                *line = format!("{indent}  - {}", line.trim_start());
            }
        }
        _ => lines.push(format!("{indent}{}: {}", key.name, key.example)),
    }
}

/// The first sentence of what the key means.
fn comment(key: &Key, indent: &str, lines: &mut Vec<String>) {
    let sentence = key.doc.split_once(". ").map_or(key.doc, |(first, _)| first).trim_end_matches('.');
    let mut line = format!("{indent}#");
    for word in sentence.split(' ') {
        if line.chars().count() + 1 + word.chars().count() > WIDTH {
            lines.push(std::mem::replace(&mut line, format!("{indent}#")));
        }
        line.push(' ');
        line.push_str(word);
    }
    lines.push(line);
}
