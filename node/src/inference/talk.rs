//! A conversation as a text that a model can continue.
//!
//! The models here are mostly trained on plain text, without the marks that chat models know. So a conversation is
//! written as people write one down, and the model continues after the last `Assistant:`, until it would speak for
//! the user:
//!
//! ```text
//! Be brief.
//!
//! User: What is a swarm?
//! Assistant: Many devices.
//! User: And together?
//! Assistant:
//! ```
//!
//! Tokenizers of other projects may come with templates of their own (programs in Jinja): these are not used.

use anyhow::Result;

use super::answer::TooLong;
use crate::tokens::Tokenizer;

/// Where an answer ends: the model begins to speak for the user.
pub(crate) const STOP: [&str; 2] = ["\nUser:", "\nAssistant:"];

/// Who says something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Speaker {
    User,
    Assistant,
}

/// Something said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Turn {
    pub(crate) speaker: Speaker,
    pub(crate) text: String,
}

/// The text to continue.
pub(crate) fn transcript(system: &str, turns: &[Turn]) -> String {
    let mut text = String::new();
    let system = system.trim();
    if !system.is_empty() {
        text.push_str(system);
        text.push_str("\n\n");
    }
    for turn in turns {
        let speaker = match turn.speaker {
            Speaker::User => "User",
            Speaker::Assistant => "Assistant",
        };
        text.push_str(&format!("{speaker}: {}\n", turn.text.trim()));
    }
    text.push_str("Assistant:");
    text
}

/// The tokens of a conversation without as many of its oldest turns as it takes to leave a quarter of the context for
/// the answer; and how many are left out.
///
/// # Errors
/// [`TooLong`], if even the last turn leaves no room; as [`Tokenizer::encode`].
pub(crate) fn fitted(
    system: &str,
    turns: &[Turn],
    tokenizer: &Tokenizer,
    context: usize,
) -> Result<(Vec<u32>, usize)> {
    let mut left_out = 0;
    loop {
        let mut tokens = Vec::new();
        tokenizer.encode(&transcript(system, turns.get(left_out..).unwrap_or_default()), &mut tokens)?;
        if tokens.len() <= context - context / 4 {
            return Ok((tokens, left_out));
        }
        let last = left_out + 1 >= turns.len();
        if last && tokens.len() <= context {
            return Ok((tokens, left_out));
        }
        anyhow::ensure!(!last, TooLong { tokens: tokens.len(), context });
        left_out += 1;
    }
}

/// The answer without the space that the colon before it asks for. Given piece by piece.
#[derive(Debug, Default)]
pub(crate) struct Trimmed {
    begun: bool,
}

impl Trimmed {
    /// The next piece.
    pub(crate) fn push<'a>(&mut self, piece: &'a str) -> &'a str {
        let piece = if self.begun { piece } else { piece.trim_start() };
        self.begun |= !piece.is_empty();
        piece
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turns() -> Vec<Turn> {
        let turn = |speaker, text: &str| Turn { speaker, text: text.into() };
        vec![
            turn(Speaker::User, "What is a swarm?\n"),
            turn(Speaker::Assistant, " Many devices."),
            turn(Speaker::User, "And together?"),
        ]
    }

    #[test]
    fn a_conversation_reads_as_one_and_ends_where_the_model_goes_on() {
        assert_eq!(
            transcript(" Be brief.", &turns()),
            "Be brief.\n\nUser: What is a swarm?\nAssistant: Many devices.\nUser: And together?\nAssistant:"
        );
        assert_eq!(transcript("", &[]), "Assistant:");
    }

    #[test]
    fn the_oldest_turns_are_left_out_where_the_context_is_short() {
        let all = transcript("Be brief.", &turns()).len();
        let fit = |context| fitted("Be brief.", &turns(), &Tokenizer::Bytes, context);
        assert_eq!(fit(2 * all).unwrap().1, 0);
        let (tokens, left_out) = fit(all).unwrap();
        assert_eq!((left_out, tokens.len() <= all - all / 4), (1, true));
        // The system's prompt and the last turn stay, if need be without room to spare.
        let short = transcript("Be brief.", &turns()[2..]).len();
        assert_eq!(fit(short).unwrap().1, 2);
        assert!(fit(short - 1).unwrap_err().is::<TooLong>());
    }

    #[test]
    fn an_answer_loses_the_space_before_it_and_no_other() {
        let mut trimmed = Trimmed::default();
        let pieces = [" ", "\n It", " is", " "].map(|piece| trimmed.push(piece));
        assert_eq!(pieces, ["", "It", " is", " "]);
    }
}
