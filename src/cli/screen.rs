//! What a person sees: one calm line that changes on a terminal, plain lines elsewhere.
//!
//! Refuses to pass on control characters: what upstreams and webhooks say is theirs, the terminal is not.

use std::borrow::Cow;
use std::env;
use std::io::{self, IsTerminal as _, Write as _};
use std::time::Duration;

const SPINNER: [char; 10] = ['⠋', '⠙', '⠹', '⠸', '⠼', '⠴', '⠦', '⠧', '⠇', '⠏'];

/// How a word is meant.
#[derive(Clone, Copy)]
pub enum Tone {
    Good,
    Bad,
    Faint,
}

impl Tone {
    /// Select graphic rendition (ECMA-48, 8.3.117).
    fn code(self) -> &'static str {
        match self {
            Self::Good => "32",
            Self::Bad => "31",
            Self::Faint => "2",
        }
    }
}

/// Standard error, or nobody.
pub struct Screen {
    shown: bool,
    /// The line can be drawn anew.
    moving: bool,
    coloured: bool,
    frame: usize,
    /// The last line drawn or printed.
    last: String,
}

impl Screen {
    /// `shown`: false for a silent screen, as scripts want it.
    pub fn of_stderr(shown: bool) -> Self {
        let terminal = io::stderr().is_terminal();
        Self {
            shown,
            moving: terminal,
            coloured: terminal && colours_wanted(),
            frame: 0,
            last: String::new(),
        }
    }

    pub fn moves(&self) -> bool {
        self.shown && self.moving
    }

    /// A word in its tone, where colours are wanted.
    pub fn tone(&self, tone: Tone, text: &str) -> String {
        painted(self.coloured, tone, text)
    }

    /// A line that stays.
    pub fn line(&mut self, text: &str) {
        let start = if self.moving { "\r\x1b[K" } else { "" };
        self.write(&format!("{start}{text}\n"));
        self.last.clear();
    }

    /// What is said next stands on a line of its own.
    pub fn leave(&mut self) {
        if self.moving {
            self.line("");
        }
    }

    /// The line that says how things are now. Elsewhere than on a terminal, `what` is printed once and
    /// `since` not at all.
    pub fn now(&mut self, what: &str, since: Duration) {
        if self.moving {
            self.frame = (self.frame + 1) % SPINNER.len();
            let since = self.tone(Tone::Faint, &elapsed(since));
            self.write(&format!("\r\x1b[K{} {what} {since}", SPINNER[self.frame]));
        } else if self.last != what {
            self.write(&format!("{what}\n"));
            what.clone_into(&mut self.last);
        }
    }

    fn write(&self, text: &str) {
        if self.shown {
            let mut err = io::stderr().lock();
            // Nobody is left to tell when this fails.
            let _ = err.write_all(text.as_bytes()).and_then(|()| err.flush());
        }
    }
}

/// <https://no-color.org>
pub fn colours_wanted() -> bool {
    env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// `text` in its tone, if `coloured`.
pub fn painted(coloured: bool, tone: Tone, text: &str) -> String {
    if coloured { format!("\x1b[{}m{text}\x1b[0m", tone.code()) } else { text.to_owned() }
}

/// `0.4s`, `12.3s`, `2m 05s`, `1h 02m`.
pub fn elapsed(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..60 => format!("{}.{}s", seconds, time.subsec_millis() / 100),
        60..3600 => format!("{}m {:02}s", seconds / 60, seconds % 60),
        _ => format!("{}h {:02}m", seconds / 3600, seconds % 3600 / 60),
    }
}

/// A stranger's text with control characters shown, not obeyed. Direction marks count as such.
pub fn printable(text: &str) -> Cow<'_, str> {
    let is_safe = |character: char| {
        !character.is_control()
            && !matches!(character, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    if text.chars().all(is_safe) {
        return Cow::Borrowed(text);
    }
    text.chars()
        .map(
            |character| {
                if is_safe(character) {
                    character.to_string()
                } else {
                    character.escape_default().to_string()
                }
            },
        )
        .collect::<String>()
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_is_told_as_exactly_as_it_matters() {
        let told = |millis| elapsed(Duration::from_millis(millis));
        assert_eq!(
            [told(0), told(449), told(59_999), told(125_000), told(3_725_000)],
            ["0.0s", "0.4s", "59.9s", "2m 05s", "1h 02m"]
        );
    }

    #[test]
    fn a_strangers_text_cannot_move_the_cursor() {
        assert_eq!(printable("Zürich ✓"), "Zürich ✓");
        assert_eq!(printable("a\x1b[2Jb\r\nc"), "a\\u{1b}[2Jb\\r\\nc");
        assert_eq!(printable("\u{202e}x"), "\\u{202e}x");
    }
}
