//! CNCF's registry in proxy mode, which Docker's own documents recommend.

use std::net::SocketAddr;
use std::process::Command;

use anyhow::{Context, Result};

use super::{Place, program};

pub(super) fn proxy(place: &Place<'_>, address: SocketAddr) -> Result<Command> {
    let file = place.dir.join("config.yml");
    let (root, upstream, quiet) = (place.dir.join("cache"), place.upstream, !place.access_log);
    let config = format!(
        r#"version: 0.1
log: {{ level: warn, accesslog: {{ disabled: {quiet} }} }}
storage:
  cache: {{ blobdescriptor: inmemory }}
  filesystem: {{ rootdirectory: "{}", maxthreads: 1000 }}
http: {{ addr: "{address}", secret: bench }}
proxy: {{ remoteurl: "http://{upstream}" }}
"#,
        root.display()
    );
    std::fs::write(&file, config).with_context(|| file.display().to_string())?;
    let mut command = program("docker-registry")?;
    command.arg("serve").arg(file);
    Ok(command)
}
