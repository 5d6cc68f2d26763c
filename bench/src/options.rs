//! What may be said on the command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};

use crate::peers::Peer;

#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    /// Measure these peers beside us; otherwise those that the case is meant for
    #[arg(long = "peer", value_name = "NAME", value_enum)]
    pub(crate) peers: Vec<Peer>,
    /// Run these cases; otherwise all
    #[arg(long = "case", value_name = "NAME")]
    pub(crate) cases: Vec<String>,
    /// How often each thing is measured; otherwise what is right for the case
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) runs: Option<u32>,
    /// A small version of everything, to see that it works: its figures mean nothing
    #[arg(long)]
    pub(crate) quick: bool,
    /// Let everyone write a line for each request; otherwise nobody does
    #[arg(long)]
    pub(crate) access_log: bool,
    /// Put the short table into README.md
    #[arg(long)]
    pub(crate) readme: bool,
    /// Where results go; otherwise bench/results for a whole run, and the build directory for a part of one
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// Where upstream's images and the stores lie; otherwise in the build directory
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
}

#[derive(Clone, Debug, Subcommand)]
pub(crate) enum Command {
    /// A client in a process of its own, so that its processor time is not counted as anyone else's
    #[command(hide = true)]
    Client {
        /// What to do, as JSON
        task: String,
    },
}

/// How large things are.
#[derive(Clone, Debug)]
pub(crate) struct Scale {
    /// Bytes of the layers of a typical image.
    pub(crate) typical: [u64; 8],
    /// Bytes of a layer that takes its time over the WAN.
    pub(crate) layer: u64,
    /// Bytes of the large layer.
    pub(crate) big: u64,
    /// Bytes of each of many layers.
    pub(crate) one_of_many: u64,
    /// How long a stream of requests lasts.
    pub(crate) spell: Duration,
}

impl Options {
    pub(crate) fn scale(&self) -> Scale {
        // In tenths of a megabyte.
        let typical = [568, 331, 189, 142, 95, 57, 28, 9];
        if self.quick {
            let spell = Duration::from_millis(500);
            Scale {
                typical: typical.map(|size| size * 10_000),
                layer: 25_600_000,
                big: 200_000_000,
                one_of_many: 800_000,
                spell,
            }
        } else {
            let spell = Duration::from_secs(4);
            Scale {
                typical: typical.map(|size| size * 100_000),
                layer: 256_000_000,
                big: 2_000_000_000,
                one_of_many: 8_000_000,
                spell,
            }
        }
    }

    /// How often something is measured that is measured `usual` times in a whole run.
    pub(crate) fn runs(&self, usual: u32) -> u32 {
        self.runs.unwrap_or(if self.quick { 1 } else { usual })
    }

    /// Whether everything is run, as it is meant to be.
    pub(crate) fn whole(&self) -> bool {
        !self.quick && self.cases.is_empty() && self.peers.is_empty()
    }
}
