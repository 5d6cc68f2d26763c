//! nginx, set up as well as it can be: as a cache, and as a server of files.

use std::net::SocketAddr;
use std::process::Command;

use anyhow::{Context, Result};

use super::{Place, program};

/// `proxy_cache` with its lock, which waits for as long as a download takes: after five seconds, its default, whoever waits
/// would ask upstream, too.
pub(super) fn caching(place: &Place<'_>, address: SocketAddr) -> Result<Command> {
    let http = format!(
        r#"
  upstream origin {{ server {upstream}; keepalive 64; }}
  proxy_cache_path {dir}/cache levels=1:2 keys_zone=images:64m max_size={most} inactive=7d use_temp_path=off;
  server {{
    listen {address} backlog=4096;
    location / {{
      proxy_pass http://origin;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_set_header Host $http_host;
      proxy_cache images;
      proxy_cache_key $request_uri;
      proxy_cache_valid 200 1h;
      proxy_cache_lock on;
      proxy_cache_lock_timeout 1h;
      proxy_cache_lock_age 1h;
      proxy_read_timeout 1h;
    }}
  }}"#,
        upstream = place.upstream,
        dir = place.dir.display(),
        most = place.max_size,
    );
    nginx(place, &http)
}

/// Files below `root/v2`, named as the paths are.
pub(super) fn files(place: &Place<'_>, address: SocketAddr) -> Result<Command> {
    let http = format!(
        r#"
  server {{
    listen {address} backlog=4096;
    root {dir}/root;
    default_type application/octet-stream;
    location = /v2/ {{ default_type application/json; return 200 "{{}}"; }}
    location ~ /manifests/ {{ default_type application/vnd.oci.image.manifest.v1+json; }}
  }}"#,
        dir = place.dir.display(),
    );
    nginx(place, &http)
}

fn nginx(place: &Place<'_>, http: &str) -> Result<Command> {
    let dir = place.dir.display();
    let access_log = if place.access_log { format!("{dir}/access.log") } else { "off".to_owned() };
    let paths: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|name| format!("  {name}_temp_path {dir}/{name};\n"))
        .concat();
    let text = format!(
        r#"user root;
daemon off;
pid {dir}/pid;
worker_processes 2;
worker_rlimit_nofile 30000;
error_log stderr warn;
events {{ worker_connections 12000; }}
http {{
{paths}
  access_log {access_log};
  sendfile on;
  tcp_nopush on;
  open_file_cache max=10000 inactive=1h;
  open_file_cache_valid 1h;
  keepalive_timeout 1h;
  keepalive_requests 1000000000;
  send_timeout 1h;
{http}
}}
"#
    );
    let file = place.dir.join("nginx.conf");
    std::fs::write(&file, text).with_context(|| file.display().to_string())?;
    let mut command = program("nginx")?;
    command.arg("-p").arg(place.dir).arg("-e").arg("stderr").arg("-c").arg(file);
    Ok(command)
}
