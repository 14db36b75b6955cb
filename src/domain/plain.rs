//! Texts of others, as people are shown them.

/// A text without control characters and without those that turn around what stands beside it. The marks that Arabic names
/// use to set a direction stay.
#[must_use]
pub fn plain(text: &str) -> String {
    let turns = |c: char| matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    text.chars().filter(|c| !c.is_control() && !turns(*c)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bidi_overrides_and_control_characters_are_removed() {
        assert_eq!(plain("متجر\u{202e}gpj\u{2066}.exe\u{7}"), "متجرgpj.exe");
        assert_eq!(plain("متجر\u{200f} نورة"), "متجر\u{200f} نورة");
    }
}
