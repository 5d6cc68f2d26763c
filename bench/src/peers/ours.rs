//! Entrepot itself, as a user runs it.

use std::net::SocketAddr;
use std::process::Command;

use anyhow::{Context, Result};
use entrepot_testkit::mirror::binary;

use super::Place;

pub(super) fn mirror(place: &Place<'_>, address: SocketAddr) -> Result<Command> {
    // Alone in its folder, which is watched.
    let folder = place.dir.join("etc");
    let file = folder.join("config.yml");
    let (cache, most, upstream) = (place.dir.join("cache"), place.max_size, place.upstream);
    let admin = place.admin.map(|admin| format!("  admin: \"{admin}\"\n")).unwrap_or_default();
    let config = format!(
        r#"proxy:
  endpoint: "http://{address}"
  listen: "{address}"
{admin}  cache: {{ dir: "{}", max_size: "{most}B" }}
  sources:
    - name: "origin"
      url: "http://{upstream}"
      insecure: true
      allow_private: true
"#,
        cache.display()
    );
    std::fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    std::fs::write(&file, config).with_context(|| file.display().to_string())?;
    let mut command = Command::new(binary());
    command.arg("serve").arg("--config").arg(file).current_dir(place.dir);
    command.env_remove("ENTREPOT_CONFIG").env_remove("ENTREPOT_LOG");
    if !place.access_log {
        command.env("ENTREPOT_LOG", "warn");
    }
    Ok(command)
}
