//! Real registries and real clients, on loopback, for the tests that must not believe our own reading of the protocol.
//!
//! Everything here is blocking, listens on a free port, lives in its own temporary directory, is ready when its
//! constructor returns and is gone when it is dropped. What goes wrong panics with the log of the program concerned:
//! this is test code, and a test has nothing better to do with an error.
//!
//! A test begins with [`need!`](crate::need): it skips, loudly, where a client is not installed, and fails there when `CI=true`.

mod containerd;
mod docker;
mod door;
mod gateway;
mod image;
mod layer;
mod listener;
mod names;
mod podman;
mod process;
mod push;
mod registry;
mod skopeo;
mod through;
mod token;

pub mod conformance;

pub use containerd::Containerd;
pub use docker::{Built, Dockerd, Pulled};
pub use door::Door;
pub use gateway::Seen;
pub use image::{Blob, Document, Image, Platform};
pub use names::Names;
pub use podman::Podman;
pub use process::{Missing, Output, Process, TempDir, find, go_tool, missing, run, skip, until};
pub use push::{Fetched, fetch};
pub use registry::{Credentials, Registry};
pub use skopeo::Skopeo;
pub use through::{Between, edge_config, mirror_of, three_times};
pub use token::TokenServer;

/// Leaves the test unless every tool named is installed: `need!("t_name", "dockerd", "docker");`
///
/// The skip is written to the real standard error, past the test harness's capture. With `CI=true` it is a failure.
#[macro_export]
macro_rules! need {
    ($test:expr, $($tool:expr),+ $(,)?) => {
        if let Some(missing) = $crate::real::missing($test, &[$($tool),+]) {
            missing.report();
            return;
        }
    };
}

/// Writes a test for each kind of upstream: `each_upstream!(check, "dockerd", "docker");` makes `check::plain`,
/// `check::tokens` and `check::redirecting`, each of which calls `check(registry)`.
#[macro_export]
macro_rules! each_upstream {
    ($check:ident, $($tool:expr),+ $(,)?) => {
        mod $check {
            $crate::upstream_test!($check, plain, plain, $($tool),+);
            $crate::upstream_test!($check, tokens, with_tokens, "openssl", $($tool),+);
            $crate::upstream_test!($check, redirecting, redirecting, "openssl", $($tool),+);
        }
    };
}

/// As `each_upstream!`, without the plain one.
#[macro_export]
macro_rules! each_guarded_upstream {
    ($check:ident, $($tool:expr),+ $(,)?) => {
        mod $check {
            $crate::upstream_test!($check, tokens, with_tokens, "openssl", $($tool),+);
            $crate::upstream_test!($check, redirecting, redirecting, "openssl", $($tool),+);
        }
    };
}

/// One of them.
#[doc(hidden)]
#[macro_export]
macro_rules! upstream_test {
    ($check:ident, $name:ident, $start:ident, $($tool:expr),+) => {
        #[test]
        fn $name() {
            let test = concat!(stringify!($check), "::", stringify!($name));
            $crate::need!(test, "docker-registry", $($tool),+);
            super::$check($crate::real::Registry::$start());
        }
    };
}
