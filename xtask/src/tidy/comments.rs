//! Rust text with its comments blanked out, so that a rule about code does not read prose.
//!
//! The hard part is what only looks like a comment: `//` in a string, `"` in a character. Strings stay, as code.

/// `text` with each character of a comment replaced by a space; line breaks stay, so lines keep their numbers.
pub(super) fn blank(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while at < chars.len() {
        let rest = &chars[at..];
        let (len, comment) = match rest {
            ['/', '/', ..] => (line_len(rest), true),
            ['/', '*', ..] => (block_len(rest), true),
            ['"', ..] => (string_len(rest), false),
            ['r', ..] if !ends_in_name(&chars[..at]) => (raw_string_len(rest).unwrap_or(1), false),
            ['b' | 'c', 'r', ..] if !ends_in_name(&chars[..at]) => (1 + raw_string_len(&rest[1..]).unwrap_or(0), false),
            ['\'', ..] => (char_len(rest), false),
            _ => (1, false),
        };
        out.extend(rest[..len].iter().map(|&c| if comment && c != '\n' { ' ' } else { c }));
        at += len;
    }
    out
}

/// True iff an `r` that follows belongs to a longer name, as in `for`.
fn ends_in_name(before: &[char]) -> bool {
    before.last().is_some_and(|c| c.is_alphanumeric() || *c == '_')
}

fn line_len(rest: &[char]) -> usize {
    rest.iter().position(|&c| c == '\n').unwrap_or(rest.len())
}

/// Block comments nest.
fn block_len(rest: &[char]) -> usize {
    let (mut at, mut depth) = (0, 0);
    while at < rest.len() {
        match rest[at..] {
            ['/', '*', ..] => (at, depth) = (at + 2, depth + 1),
            ['*', '/', ..] => (at, depth) = (at + 2, depth - 1),
            _ => at += 1,
        }
        if depth == 0 {
            return at;
        }
    }
    rest.len()
}

fn string_len(rest: &[char]) -> usize {
    let mut at = 1;
    while at < rest.len() {
        match rest[at] {
            '\\' => at += 2,
            '"' => return at + 1,
            _ => at += 1,
        }
    }
    rest.len()
}

/// The length of `r"…"`, `r#"…"#` and so on; `None` for any other word that starts with `r`.
fn raw_string_len(rest: &[char]) -> Option<usize> {
    let hashes = rest[1..].iter().take_while(|&&c| c == '#').count();
    let body = hashes + 2;
    if rest.get(body - 1) != Some(&'"') {
        return None;
    }
    let ends = |at: &usize| rest[*at] == '"' && rest[at + 1..].iter().take_while(|&&c| c == '#').count() >= hashes;
    Some((body..rest.len()).find(ends).map_or(rest.len(), |at| at + 1 + hashes))
}

/// The length of a character literal; 1 for the tick of a lifetime.
fn char_len(rest: &[char]) -> usize {
    match rest {
        // The escaped character may itself be a tick, so the search for the closing one starts behind it.
        [_, '\\', _, tail @ ..] => 3 + tail.iter().position(|&c| c == '\'').map_or(0, |at| at + 1),
        [_, _, '\'', ..] => 3,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, code: &str) {
        let blanked = blank(text);
        assert_eq!(blanked.split_whitespace().collect::<Vec<_>>(), code.split_whitespace().collect::<Vec<_>>());
        assert_eq!(blanked.lines().count(), text.lines().count());
    }

    #[test]
    fn comments_go() {
        check("a // b\nc", "a c");
        check("//! a\n/// b\nfn f() {}", "fn f() {}");
        check("a /* b /* c */ d\n */ e", "a e");
        check("a /* open", "a");
    }

    #[test]
    fn strings_and_characters_stay() {
        check(r#"a("//b"); // c"#, r#"a("//b");"#);
        check(r#"a("\"//b"); // c"#, r#"a("\"//b");"#);
        check("r#\"x\" // y\"# // z", "r#\"x\" // y\"#");
        check("br\"\\\" // z", "br\"\\\"");
        check("a('\"') // b", "a('\"')");
        check("a('\\'') // b", "a('\\'')");
        check("f::<'a>(r) // b", "f::<'a>(r)");
        check("for r in r#in // b", "for r in r#in");
        check("a(\"open // b", "a(\"open // b");
    }
}
