//! Answers given a moment ago, for those who ask the same in the same words. They belong to a configuration, and go with it.

use std::hash::BuildHasher as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use entrepot_core::answer::Answer;
use entrepot_core::repeat::Question;
use entrepot_engine::{Facts, Reply};
use hashbrown::DefaultHashBuilder;
use quick_cache::sync::Cache;

/// Bytes of answers, with their questions, that are kept in memory.
const HOT: u64 = 4 << 20;
/// Bytes of an answer's head in memory, and of what is said of it.
const HEAD: u64 = 2048;
/// Questions that are remembered as asked once.
const ASKED: usize = 1024;

/// See the module.
pub(crate) struct Replies {
    given: Cache<Vec<u8>, Arc<Given>, Weight>,
    /// By their hash. An answer is kept when its question comes again: most never do, and keeping costs more than looking.
    asked: Box<[AtomicU64]>,
    hasher: DefaultHashBuilder,
}

struct Given {
    answer: Answer,
    facts: Facts,
    until: Instant,
}

#[derive(Clone)]
struct Weight;

impl quick_cache::Weighter<Vec<u8>, Arc<Given>> for Weight {
    fn weight(&self, words: &Vec<u8>, given: &Arc<Given>) -> u64 {
        (words.len() + given.answer.body.len()) as u64 + HEAD
    }
}

impl Default for Replies {
    fn default() -> Replies {
        Replies {
            given: Cache::with_weighter(1024, HOT, Weight),
            asked: (0..ASKED).map(|_| AtomicU64::new(0)).collect(),
            hasher: DefaultHashBuilder::default(),
        }
    }
}

impl Replies {
    /// The answer to a question that comes at `now`.
    pub(crate) fn get<B>(&self, question: &Question, now: Instant) -> Option<Reply<B>> {
        let given = self.given.get(question.words()).filter(|given| now < given.until)?;
        let mut facts = given.facts.clone();
        facts.address = question.address;
        Some(Reply { answer: given.answer.clone(), body: None, facts })
    }

    /// Keeps the answer to a question that came at `since`, for as long as it may be given again.
    pub(crate) fn keep<B>(&self, question: &Question, reply: &Reply<B>, since: Instant) {
        let (Some(again), None) = (reply.facts.again, &reply.body) else { return };
        if self.is_asked_again(question) {
            let (answer, facts) = (reply.answer.clone(), reply.facts.clone());
            let given = Given { answer, facts, until: since + again };
            self.given.insert(question.words().to_vec(), Arc::new(given));
        }
    }

    fn is_asked_again(&self, question: &Question) -> bool {
        let hash = self.hasher.hash_one(question.words());
        let asked = &self.asked[hash as usize % ASKED];
        let again = asked.load(Ordering::Relaxed) == hash;
        if !again {
            asked.store(hash, Ordering::Relaxed);
        }
        again
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;
    use std::time::Duration;

    use bytes::Bytes;
    use entrepot_core::answer;
    use entrepot_core::config::{self, Config};
    use entrepot_core::event::Route;
    use http::Request;

    use super::*;

    fn config() -> Config {
        config::parse(config::DEFAULT, "default.yml", &mut |_| Err("no secrets".into())).unwrap().config
    }

    fn question(tag: &str, address: [u8; 4]) -> Question {
        let path = format!("/v2/team/app/manifests/{tag}");
        let (head, ()) = Request::get(path).header("host", "127.0.0.1").body(()).unwrap().into_parts();
        Question::of(&config(), &head, address.into()).unwrap()
    }

    fn reply(body: Bytes, again: Option<Duration>) -> Reply<()> {
        let mut facts = Facts::new(Route::Manifest, [192, 0, 2, 1].into());
        facts.again = again;
        Reply { answer: Answer { body, ..answer::ping(true) }, body: None, facts }
    }

    #[test]
    fn an_answer_is_given_again_for_its_time_to_whoever_asks_the_same() {
        let (replies, since) = (Replies::default(), Instant::now());
        let asked = question("v1", [192, 0, 2, 1]);
        let get =
            |question: &Question, millis| replies.get::<()>(question, since + Duration::from_millis(millis));
        assert!(get(&asked, 0).is_none());
        let one = reply("one".into(), Some(Duration::from_millis(700)));
        replies.keep(&asked, &one, since);
        assert!(get(&asked, 0).is_none(), "most questions are asked once");
        replies.keep(&asked, &one, since);
        let again = get(&question("v1", [203, 0, 113, 9]), 699).unwrap();
        assert_eq!(again.answer.body, "one");
        assert_eq!(again.facts.address, IpAddr::from([203, 0, 113, 9]), "each is logged as itself");
        assert!(get(&asked, 700).is_none());
        assert!(get(&question("v2", [192, 0, 2, 1]), 0).is_none());
        replies.keep(&asked, &reply("two".into(), Some(Duration::from_secs(1))), since);
        assert_eq!(get(&asked, 999).unwrap().answer.body, "two");
    }

    #[test]
    fn what_may_not_be_given_again_is_not_kept() {
        let (replies, since) = (Replies::default(), Instant::now());
        let asked = question("v1", [192, 0, 2, 1]);
        let streamed = Reply { body: Some(()), ..reply(Bytes::new(), Some(Duration::from_secs(1))) };
        for reply in [reply("one".into(), None), streamed] {
            replies.keep(&asked, &reply, since);
            replies.keep(&asked, &reply, since);
        }
        assert!(replies.get::<()>(&asked, since).is_none());
    }

    #[test]
    fn no_more_is_kept_than_there_is_room_for() {
        let (replies, since) = (Replies::default(), Instant::now());
        for number in 0..100 {
            let body = vec![0; 500_000].into();
            let asked = question(&format!("v{number}"), [192, 0, 2, 1]);
            let reply = reply(body, Some(Duration::from_secs(1)));
            replies.keep(&asked, &reply, since);
            replies.keep(&asked, &reply, since);
        }
        let kept = &replies.given;
        assert!(kept.weight() <= HOT && !kept.is_empty(), "{}", kept.weight());
    }
}
