//! The canaries: every secret that a test gives to the program, and every place where it must not come out.
//!
//! A [`Watch`] belongs to a site. The tests pass everything that the program writes, answers and
//! stores to [`Watch::search`]. They do so at trace level, and whatever a test looks at. When the
//! last holder drops the watch, a leak fails the test.

use std::{collections::BTreeSet, fmt::Write as _, ops::Range, thread};

use aho_corasick::{AhoCorasick, MatchKind};
use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD},
};
use parking_lot::Mutex;

/// Shorter ones are found anywhere.
const SHORTEST: usize = 7;

/// So much is shown around a leak, to either side.
const AROUND: usize = 50;

/// Looks for secrets, and remembers what it found.
pub struct Watch(Mutex<State>);

struct State {
    /// Name and secret.
    canaries: BTreeSet<(String, Vec<u8>)>,
    /// Built of the canaries when it is first needed; a pattern's number tells its name.
    finder: Option<(AhoCorasick, Vec<String>)>,
    leaks: Vec<String>,
}

impl Watch {
    /// Knows the tokens that the simulator issues, and the word that every other secret of the tests contains.
    pub fn new() -> Self {
        let watch = Self(Mutex::new(State { canaries: BTreeSet::new(), finder: None, leaks: Vec::new() }));
        watch.sow("an access token", b"ory_at_");
        watch.sow("a refresh token", b"ory_rt_");
        watch.sow("a secret of the tests", b"canary");
        watch
    }

    /// From now on, the watch also looks for `secret`, under its name.
    pub fn sow(&self, name: &str, secret: &[u8]) {
        if secret.len() < SHORTEST && secret != b"canary" {
            return;
        }
        let mut state = self.0.lock();
        if state.canaries.insert((name.to_owned(), secret.to_vec())) {
            state.finder = None;
        }
    }

    /// The value of a setting: a secret if its name says so.
    pub fn sow_setting(&self, key: &str, value: &str) {
        if key == "VAULT__KEYS" {
            for entry in value.split(',') {
                self.sow_key(entry);
            }
        } else if let Some(password) = url::Url::parse(value).ok().as_ref().and_then(url::Url::password) {
            self.sow(&format!("the password in {key}"), password.as_bytes());
        } else if ["SECRET", "TOKEN", "TOKENS", "PASSWORD"].iter().any(|word| key.ends_with(word)) {
            // The part before the last colon is a name or a scope.
            for entry in value.split(',') {
                self.sow(key, entry.rsplit(':').next().unwrap_or(entry).as_bytes());
            }
        }
    }

    /// A key of the vault, `ID:BASE64`: its text and its bytes.
    pub fn sow_key(&self, entry: &str) {
        let Some((id, key)) = entry.trim().split_once(':') else { return };
        self.sow(&format!("the vault's key {id:?}"), key.as_bytes());
        if let Ok(bytes) = STANDARD_NO_PAD.decode(key.trim_end_matches('=')) {
            self.sow(&format!("the bytes of the vault's key {id:?}"), &bytes);
        }
    }

    /// Looks for every canary, in all its spellings.
    pub fn search(&self, place: &str, text: &[u8]) {
        let mut state = self.0.lock();
        let State { canaries, finder, leaks } = &mut *state;
        let (finder, names) = finder.get_or_insert_with(|| build(canaries));
        let Some(first) = finder.find(text) else { return };
        let name = names[first.pattern().as_usize()].clone();
        leaks.push(format!("{name} is shown in {place}: {}", around(finder, text, first.range())));
    }

    /// The leaks that were found since the last call. The test does not fail because of them.
    pub fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().leaks)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let leaks = self.take();
        if !leaks.is_empty() {
            let told = format!("{} leak(s):\n{}", leaks.len(), leaks[..leaks.len().min(20)].join("\n"));
            // A second panic would end the whole binary.
            assert!(thread::panicking(), "{told}");
            eprintln!("{told}");
        }
    }
}

fn build(canaries: &BTreeSet<(String, Vec<u8>)>) -> (AhoCorasick, Vec<String>) {
    let (mut patterns, mut names) = (Vec::new(), Vec::new());
    for (name, secret) in canaries {
        for (spelling, pattern) in spellings(secret) {
            patterns.push(pattern);
            names.push(format!("{name} ({spelling})"));
        }
    }
    // The longest name is the most telling one.
    let finder = AhoCorasick::builder().match_kind(MatchKind::LeftmostLongest).build(patterns).unwrap();
    (finder, names)
}

/// How a secret may be written.
fn spellings(secret: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let joined = |separator: &str, write: &dyn Fn(&u8) -> String| {
        secret.iter().map(write).collect::<Vec<_>>().join(separator).into_bytes()
    };
    let mut all = vec![
        ("as it is", secret.to_vec()),
        ("in hex", joined("", &|byte| format!("{byte:02x}"))),
        ("in hex", joined("", &|byte| format!("{byte:02X}"))),
        ("in bytes", joined(", ", &u8::to_string)),
        ("URL-encoded", joined("", &|byte| encoded(*byte, false))),
        ("URL-encoded", joined("", &|byte| encoded(*byte, true))),
    ];
    // Three bytes are four characters, so the text before a secret decides how the secret is written. The characters
    // that its neighbours have a share in are left out.
    for before in 0..3 {
        let text = [&vec![0; before][..], secret].concat();
        let inner = |whole: String| {
            let (begin, end) = ((before * 8).div_ceil(6), text.len() * 8 / 6);
            whole.as_bytes()[begin..end].to_vec()
        };
        all.push(("in base64", inner(STANDARD_NO_PAD.encode(&text))));
        all.push(("in base64", inner(URL_SAFE_NO_PAD.encode(&text))));
    }
    all
}

/// A byte in a URL; `strictly`: with everything encoded that may be.
fn encoded(byte: u8, strictly: bool) -> String {
    let plain = byte.is_ascii_alphanumeric() || !strictly && b"-_.~".contains(&byte);
    if plain { char::from(byte).to_string() } else { format!("%{byte:02X}") }
}

/// What stands around a leak, without any secret.
fn around(finder: &AhoCorasick, text: &[u8], leak: Range<usize>) -> String {
    let in_token = |byte: &u8| byte.is_ascii_alphanumeric() || b"_-+/=%".contains(byte);
    // Neither end cuts another secret.
    let begin = leak.start.checked_sub(AROUND).map_or(0, |begin| {
        text[begin..leak.start].iter().position(|byte| !in_token(byte)).map_or(leak.start, |at| begin + at)
    });
    let end = Some(leak.end + 2 * AROUND).filter(|end| *end < text.len()).map_or(text.len(), |end| {
        text[leak.end..end].iter().rposition(|byte| !in_token(byte)).map_or(leak.end, |at| leak.end + at)
    });
    let widest = begin..end;
    let mut shown = String::new();
    let mut at = widest.start;
    for found in finder.find_iter(&text[widest.clone()]) {
        let start = widest.start + found.start();
        let start = text[..start].iter().rposition(|byte| !in_token(byte)).map_or(0, |last| last + 1).max(at);
        let end = widest.start + found.end();
        let in_list = |byte: &u8| byte.is_ascii_digit() || b", ".contains(byte);
        let is_list = text[end - found.len()..end].contains(&b',');
        let goes_on = |byte: &u8| if is_list { in_list(byte) } else { in_token(byte) };
        let end = text[end..].iter().position(|byte| !goes_on(byte)).map_or(text.len(), |first| end + first);
        if end > at {
            let _ = write!(shown, "{}[…]", String::from_utf8_lossy(&text[at..start]));
            at = end;
        }
    }
    let rest = at..widest.end.max(at);
    shown + &String::from_utf8_lossy(&text[rest])
}
