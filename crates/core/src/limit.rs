//! How often one client may ask: an exact generic cell rate algorithm on the monotonic clock, and the bounded memory of
//! who asked when.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use crate::config::RateLimit;
use crate::time::Mono;

/// How many keys [`Buckets`] remembers unless told otherwise; about 10 MB when full.
pub const MAX_KEYS: usize = 100_000;

/// All requests of a client, pulls or not, may be this many times as frequent as its pulls.
pub const REQUESTS_PER_PULL: u32 = 10;

/// `count` requests per `per`, `burst` of them at once. The arithmetic is rational, so no rate is rounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gcra {
    count: u32,
    per_ms: u64,
    burst: u32,
}

/// The theoretical arrival time: when the bucket will be full again, in milliseconds times `count` of the [`Gcra`] that
/// made it. It means nothing to a `Gcra` of another count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tat(u128);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Allowed {
        tat: Tat,
        standing: Standing,
    },
    /// Allowed by a limiter that does not say what is left.
    Passed,
    /// Nothing was charged: a client that keeps knocking is not kept out longer for it.
    Refused {
        retry_after: Duration,
        standing: Standing,
    },
}

/// What the `RateLimit-*` headers say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Requests at once, from a full bucket.
    pub limit: u32,
    /// How long an empty bucket takes to fill.
    pub window: Duration,
    /// Requests left now.
    pub remaining: u32,
    /// Until the bucket is full again.
    pub reset: Duration,
}

/// Which bucket, and whose: IPv4 by address, IPv6 by /64, as Docker Hub does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LimitKey {
    pub bucket: Bucket,
    pub client: Prefix,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Bucket {
    /// Manifest requests by GET, which is what Docker Hub counts as pulls.
    Pulls,
    /// Every request, whatever its fate.
    Requests,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Prefix {
    V4([u8; 4]),
    V6([u8; 8]),
}

/// Who asked when, for at most a fixed number of keys. When a new key needs room, the one nearest to being full again is
/// forgotten, which is a full one if there is any: a key under pressure outlives every calmer one.
#[derive(Clone, Debug)]
pub struct Buckets {
    capacity: usize,
    tats: HashMap<LimitKey, (Mono, Tat)>,
    /// The same keys, by the instant at which they are full again.
    order: BTreeSet<(Mono, LimitKey)>,
}

impl Gcra {
    /// The limit on pulls as configured. Zeros, which the configuration refuses, count as one.
    pub fn pulls(limit: &RateLimit) -> Gcra {
        Gcra::new(limit.count, limit.per, limit.burst)
    }

    /// The tenfold bound on all requests.
    pub fn requests(limit: &RateLimit) -> Gcra {
        Gcra::new(
            limit.count.saturating_mul(REQUESTS_PER_PULL),
            limit.per,
            limit.burst.saturating_mul(REQUESTS_PER_PULL),
        )
    }

    pub fn new(count: u32, per: Duration, burst: u32) -> Gcra {
        let per_ms = u64::try_from(per.as_millis()).unwrap_or(u64::MAX);
        Gcra { count: count.max(1), per_ms: per_ms.max(1), burst: burst.max(1) }
    }

    /// Charges `cost` requests at `now` to a bucket last seen at `tat` (`None`: never).
    pub fn check(&self, tat: Option<Tat>, now: Mono, cost: u32) -> Verdict {
        let instant = u128::from(now.0) * u128::from(self.count);
        let before = tat.map_or(instant, |tat| tat.0.max(instant));
        let after = before + u128::from(cost) * u128::from(self.per_ms);
        let allowance = u128::from(self.burst) * u128::from(self.per_ms);
        match after.checked_sub(instant + allowance) {
            None | Some(0) => Verdict::Allowed { tat: Tat(after), standing: self.standing(after - instant) },
            Some(excess) => Verdict::Refused {
                retry_after: self.duration(excess),
                standing: self.standing(before - instant),
            },
        }
    }

    fn standing(&self, used: u128) -> Standing {
        let per = u128::from(self.per_ms);
        let left = (u128::from(self.burst) * per).saturating_sub(used) / per;
        Standing {
            limit: self.burst,
            window: self.duration(u128::from(self.burst) * per),
            remaining: u32::try_from(left).unwrap_or(u32::MAX),
            reset: self.duration(used),
        }
    }

    /// Rounded up to the millisecond: whoever waits that long is allowed.
    fn duration(&self, scaled: u128) -> Duration {
        let ms = scaled.div_ceil(u128::from(self.count));
        Duration::from_millis(u64::try_from(ms).unwrap_or(u64::MAX))
    }

    fn full_at(&self, tat: Tat) -> Mono {
        Mono(u64::try_from(tat.0.div_ceil(u128::from(self.count))).unwrap_or(u64::MAX))
    }
}

/// The verdict of a limiter that answers only yes or no, and counts by the configured unit of time: what is left is not
/// known, and a refused client may come again when that time is over.
pub fn yes_or_no(limit: Option<&RateLimit>, bucket: Bucket, allowed: bool) -> Verdict {
    let (count, window) = limit.map_or((0, Duration::ZERO), |limit| {
        let count = match bucket {
            Bucket::Pulls => limit.count,
            Bucket::Requests => limit.count.saturating_mul(REQUESTS_PER_PULL),
        };
        (count, limit.per)
    });
    let standing = Standing { limit: count, window, remaining: 0, reset: window };
    if allowed { Verdict::Passed } else { Verdict::Refused { retry_after: window, standing } }
}

impl LimitKey {
    pub fn new(bucket: Bucket, address: IpAddr) -> LimitKey {
        let client = match address.to_canonical() {
            IpAddr::V4(address) => Prefix::V4(address.octets()),
            IpAddr::V6(address) => {
                let [a, b, c, d, e, f, g, h, ..] = address.octets();
                Prefix::V6([a, b, c, d, e, f, g, h])
            }
        };
        LimitKey { bucket, client }
    }
}

impl fmt::Display for LimitKey {
    /// One line without spaces, which a host may use as the name of a bucket elsewhere.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.bucket {
            Bucket::Pulls => "pulls:",
            Bucket::Requests => "requests:",
        })?;
        match self.client {
            Prefix::V4(octets) => write!(f, "{}", std::net::Ipv4Addr::from(octets)),
            Prefix::V6([a, b, c, d, e, g, h, i]) => {
                write!(f, "{a:02x}{b:02x}:{c:02x}{d:02x}:{e:02x}{g:02x}:{h:02x}{i:02x}::/64")
            }
        }
    }
}

impl Default for Buckets {
    fn default() -> Buckets {
        Buckets::new(MAX_KEYS)
    }
}

impl Buckets {
    /// At most `capacity` keys, and at least one.
    pub fn new(capacity: usize) -> Buckets {
        Buckets { capacity: capacity.max(1), tats: HashMap::new(), order: BTreeSet::new() }
    }

    /// Charges `cost` requests to `key`. One key must always come with the same `gcra`, or with a new `Buckets` when the
    /// configuration changes.
    pub fn charge(&mut self, gcra: &Gcra, key: LimitKey, now: Mono, cost: u32) -> Verdict {
        self.forget_full(now);
        let known = self.tats.get(&key).copied();
        let verdict = gcra.check(known.map(|(_, tat)| tat), now, cost);
        if let Verdict::Allowed { tat, .. } = verdict {
            match known {
                Some((full_at, _)) => {
                    self.order.remove(&(full_at, key));
                }
                None => self.make_room(),
            }
            let full_at = gcra.full_at(tat);
            self.order.insert((full_at, key));
            self.tats.insert(key, (full_at, tat));
        }
        verdict
    }

    pub fn len(&self) -> usize {
        self.tats.len()
    }

    pub fn is_empty(&self) -> bool {
        self.tats.is_empty()
    }

    /// A full bucket and an unknown one are the same thing. A few at a time, so that no request pays for many.
    fn forget_full(&mut self, now: Mono) {
        for _ in 0..4 {
            match self.order.first() {
                Some(&(full_at, key)) if full_at <= now => {
                    self.order.pop_first();
                    self.tats.remove(&key);
                }
                _ => break,
            }
        }
    }

    fn make_room(&mut self) {
        while self.tats.len() >= self.capacity {
            let Some((_, key)) = self.order.pop_first() else {
                break;
            };
            self.tats.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests;
