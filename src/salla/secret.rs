//! Secrets on their way out: in buffers that are wiped when the last reader is done with them, and never in the
//! words of a server that repeats what it was sent.

use std::borrow::Cow;

use bytes::Bytes;
use zeroize::Zeroizing;

/// The text as what a request may own. What the connection copies into its own buffers is not wiped.
pub fn wiped(text: Zeroizing<String>) -> Bytes {
    struct Owner(Zeroizing<String>);
    impl AsRef<[u8]> for Owner {
        fn as_ref(&self) -> &[u8] {
            self.0.as_bytes()
        }
    }
    Bytes::from_owner(Owner(text))
}

/// `text` without `secrets`: a server may repeat in its complaint what it was sent.
pub fn masked<'a>(text: &'a str, secrets: &[&str]) -> Cow<'a, str> {
    let found = secrets.iter().filter(|secret| !secret.is_empty() && text.contains(**secret));
    found.fold(Cow::Borrowed(text), |text, secret| Cow::Owned(text.replace(secret, "[secret]")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_sent_is_not_repeated() {
        assert_eq!(
            masked("ory_rt_1 of s3cret is ory_rt_1", &["ory_rt_1", "s3cret"]),
            "[secret] of [secret] is [secret]"
        );
        assert!(matches!(masked("no such thing", &["ory_rt_1", ""]), Cow::Borrowed("no such thing")));
    }
}
