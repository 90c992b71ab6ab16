//! What a request asks for.
//!
//! Fields that are read: OpenAI's reference of `/v1/completions` and `/v1/chat/completions`.

use axum::http::StatusCode;
use serde_json::{Map, Value};

use super::error::ApiError;
use crate::inference::Sampling;
use crate::inference::talk::{self, Speaker, Turn};

/// Most tokens that may be asked for.
pub(super) const MAX_TOKENS: u64 = 16_384;
/// Tokens of an answer if nothing is said: OpenAI's for completions.
const DEFAULT_COMPLETION: usize = 16;
/// The same of a chat, where OpenAI's is all that fits. Models that were trained on plain text rarely end by themselves.
const DEFAULT_CHAT: usize = 256;
/// Most stop sequences.
const MAX_STOP: usize = 4;

/// What shall be continued.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Prompt {
    Text(String),
    Tokens(Vec<u32>),
    Talk { system: String, turns: Vec<Turn> },
}

/// A request that was understood.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Ask {
    pub(super) prompt: Prompt,
    pub(super) most: usize,
    pub(super) stop: Vec<String>,
    pub(super) sampling: Sampling,
    /// Piece by piece.
    pub(super) stream: bool,
    /// The stream ends with the usage.
    pub(super) usage: bool,
}

/// Fields whose values, other than these, would change the answer in ways that are not there.
const UNKNOWN: [(&str, &[&str]); 13] = [
    ("n", &["1"]),
    ("best_of", &["1"]),
    ("echo", &["false"]),
    ("suffix", &["\"\""]),
    ("logprobs", &["false", "0"]),
    ("top_logprobs", &["0"]),
    ("frequency_penalty", &["0", "0.0"]),
    ("presence_penalty", &["0", "0.0"]),
    ("logit_bias", &["{}"]),
    ("tools", &["[]"]),
    ("functions", &["[]"]),
    ("response_format", &["{\"type\":\"text\"}"]),
    ("modalities", &["[\"text\"]"]),
];

impl Ask {
    /// Reads the body of a request to `/v1/completions`, or to `/v1/chat/completions` if it is a `chat`, for the model
    /// called `model`. `seed` is drawn from where none is given.
    ///
    /// # Errors
    /// What is not understood: the field is named.
    pub(super) fn read(body: &[u8], chat: bool, model: &str, seed: u64) -> Result<Self, ApiError> {
        let bad = |message: String| ApiError::new(StatusCode::BAD_REQUEST, message);
        let fields: Map<String, Value> = serde_json::from_slice(body)
            .map_err(|error| bad(format!("the body is no JSON object: {error}")))?;
        let fields = Fields(fields);
        for (name, harmless) in UNKNOWN {
            let value = fields.get(name);
            if value.is_some_and(|value| !harmless.contains(&value.to_string().as_str())) {
                let message = format!("only {} is understood here", harmless.join(" or "));
                return Err(ApiError::of(name, message).with_code("unsupported_value"));
            }
        }
        match fields.get("model") {
            None => {}
            Some(Value::String(named)) if named == model => {}
            Some(named) => {
                let message = format!("there is no model {named} here, only \"{model}\"");
                return Err(ApiError::of("model", message)
                    .with_status(StatusCode::NOT_FOUND)
                    .with_code("model_not_found"));
            }
        }
        let prompt = if chat { fields.talk()? } else { fields.prompt()? };
        let mut stop = fields.stop()?;
        if chat {
            stop.extend(talk::STOP.map(str::to_owned));
        }
        let limit = fields.whole("max_tokens", 1, MAX_TOKENS)?;
        let limit =
            if chat { fields.whole("max_completion_tokens", 1, MAX_TOKENS)?.or(limit) } else { limit };
        let most = limit.map_or(if chat { DEFAULT_CHAT } else { DEFAULT_COMPLETION }, |limit| limit as usize);
        let seed = match fields.get("seed") {
            None => seed,
            Some(given) => given
                .as_u64()
                // As many different seeds as there are whole numbers.
                .or_else(|| given.as_i64().map(i64::cast_unsigned))
                .ok_or_else(|| ApiError::of("seed", format!("{given} is no whole number of 64 bits")))?,
        };
        let temperature = fields.real("temperature", 0.0..=2.0)?.unwrap_or(1.0);
        let top_p = fields.real("top_p", f64::MIN_POSITIVE..=1.0)?.unwrap_or(1.0);
        let top_k = fields.whole("top_k", 1, u32::MAX.into())?.map(|top_k| top_k as usize);
        let usage = match fields.get("stream_options") {
            None => false,
            Some(Value::Object(options)) => options.get("include_usage") == Some(&Value::Bool(true)),
            Some(_) => return Err(ApiError::of("stream_options", "an object is expected")),
        };
        let sampling = Sampling { temperature, top_k, top_p, seed };
        Ok(Self { prompt, most, stop, sampling, stream: fields.flag("stream")?, usage })
    }
}

/// A request's fields. `null` is as good as nothing.
struct Fields(Map<String, Value>);

impl Fields {
    fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name).filter(|value| !value.is_null())
    }

    fn flag(&self, name: &str) -> Result<bool, ApiError> {
        match self.get(name) {
            None => Ok(false),
            Some(Value::Bool(value)) => Ok(*value),
            Some(_) => Err(ApiError::of(name, "true or false is expected")),
        }
    }

    fn whole(&self, name: &str, low: u64, high: u64) -> Result<Option<u64>, ApiError> {
        let Some(value) = self.get(name) else { return Ok(None) };
        let within = value.as_u64().filter(|value| (low..=high).contains(value));
        within.map(Some).ok_or_else(|| {
            ApiError::of(name, format!("{value} is not a whole number between {low} and {high}"))
        })
    }

    fn real(&self, name: &str, range: std::ops::RangeInclusive<f64>) -> Result<Option<f64>, ApiError> {
        let Some(value) = self.get(name) else { return Ok(None) };
        let within = value.as_f64().filter(|value| range.contains(value));
        within.map(Some).ok_or_else(|| {
            let low = if *range.start() == 0.0 { "from" } else { "above" };
            ApiError::of(name, format!("{value} is no number {low} 0 to {}", range.end()))
        })
    }

    fn stop(&self) -> Result<Vec<String>, ApiError> {
        let bad = || ApiError::of("stop", format!("a text or at most {MAX_STOP} of them are expected"));
        match self.get("stop") {
            None => Ok(Vec::new()),
            Some(Value::String(stop)) => Ok(vec![stop.clone()]),
            Some(Value::Array(all)) if all.len() <= MAX_STOP => {
                all.iter().map(|stop| stop.as_str().map(str::to_owned).ok_or_else(bad)).collect()
            }
            Some(_) => Err(bad()),
        }
    }

    /// Of a completion: a text, a list with one text, or the numbers of tokens.
    fn prompt(&self) -> Result<Prompt, ApiError> {
        let bad = |message: &str| Err(ApiError::of("prompt", message));
        match self.get("prompt") {
            None => bad("it is missing: what shall be continued?"),
            Some(Value::String(text)) => Ok(Prompt::Text(text.clone())),
            Some(Value::Array(all)) => match all.as_slice() {
                [] => bad("the list is empty"),
                [Value::String(text)] => Ok(Prompt::Text(text.clone())),
                [Value::String(_), ..] => bad("one text at a time is understood here"),
                _ => {
                    let token = |value: &Value| value.as_u64().and_then(|token| u32::try_from(token).ok());
                    match all.iter().map(token).collect::<Option<_>>() {
                        Some(tokens) => Ok(Prompt::Tokens(tokens)),
                        None => bad("a text, or a list of tokens' numbers, is expected"),
                    }
                }
            },
            Some(_) => bad("a text is expected"),
        }
    }

    /// Of a chat.
    fn talk(&self) -> Result<Prompt, ApiError> {
        let Some(Value::Array(messages)) = self.get("messages") else {
            return Err(ApiError::of("messages", "a list of messages is expected"));
        };
        let (mut system, mut turns) = (String::new(), Vec::new());
        for (number, message) in messages.iter().enumerate() {
            let name = format!("messages[{number}]");
            let text = content(&message["content"]).ok_or_else(|| {
                ApiError::of(
                    &format!("{name}.content"),
                    "a text, or a list of parts of type text, is expected",
                )
            })?;
            let speaker = match message["role"].as_str() {
                Some("system" | "developer") => {
                    if !system.is_empty() {
                        system.push('\n');
                    }
                    system.push_str(&text);
                    continue;
                }
                Some("user") => Speaker::User,
                Some("assistant") => Speaker::Assistant,
                _ => {
                    let message = "only system, developer, user and assistant are understood here";
                    return Err(ApiError::of(&format!("{name}.role"), message));
                }
            };
            turns.push(Turn { speaker, text });
        }
        if turns.is_empty() {
            return Err(ApiError::of("messages", "at least one message of a user is expected"));
        }
        Ok(Prompt::Talk { system, turns })
    }
}

/// A message's text.
fn content(content: &Value) -> Option<String> {
    match content {
        Value::String(text) => Some(text.clone()),
        Value::Array(parts) => {
            let text = |part: &Value| {
                let text = part["text"].as_str().filter(|_| part["type"] == "text")?;
                Some(text.to_owned())
            };
            parts.iter().map(text).collect()
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &str, chat: bool) -> Result<Ask, ApiError> {
        Ask::read(body.as_bytes(), chat, "swarm", 77)
    }

    #[test]
    fn a_completion_is_read_with_openais_defaults() {
        let ask =
            read(r#"{"model": "swarm", "prompt": "Dear ", "user": "me", "n": 1, "logprobs": null}"#, false);
        let ask = ask.unwrap();
        let sampling = Sampling { temperature: 1.0, top_k: None, top_p: 1.0, seed: 77 };
        let prompt = Prompt::Text("Dear ".into());
        assert_eq!(ask, Ask { prompt, most: 16, stop: vec![], sampling, stream: false, usage: false });
        let all = r#"{"prompt": ["x"], "max_tokens": 5, "stop": ["a", "b"], "temperature": 0, "top_p": 0.5,
                      "seed": -1, "stream": true, "stream_options": {"include_usage": true}, "top_k": 4}"#;
        let ask = read(all, false).unwrap();
        let sampling = Sampling { temperature: 0.0, top_k: Some(4), top_p: 0.5, seed: u64::MAX };
        let (prompt, stop) = (Prompt::Text("x".into()), vec!["a".into(), "b".into()]);
        assert_eq!(ask, Ask { prompt, most: 5, stop, sampling, stream: true, usage: true });
        let tokens = read(r#"{"prompt": [1, 2]}"#, false).unwrap().prompt;
        assert_eq!(tokens, Prompt::Tokens(vec![1, 2]));
    }

    #[test]
    fn a_chat_is_read_with_its_roles_and_parts() {
        let body = r#"{"messages": [{"role": "system", "content": "Be brief."},
            {"role": "user", "content": [{"type": "text", "text": "Hel"}, {"type": "text", "text": "lo"}]},
            {"role": "assistant", "content": "Hi."}, {"role": "user", "content": "Well?"}],
            "max_completion_tokens": 9, "stop": "x"}"#;
        let ask = read(body, true).unwrap();
        let turn = |speaker, text: &str| Turn { speaker, text: text.into() };
        let turns =
            vec![turn(Speaker::User, "Hello"), turn(Speaker::Assistant, "Hi."), turn(Speaker::User, "Well?")];
        assert_eq!(ask.prompt, Prompt::Talk { system: "Be brief.".into(), turns });
        assert_eq!((ask.most, ask.stop.len()), (9, 3));
    }

    #[test]
    fn what_is_not_understood_is_named() {
        for (body, words) in [
            ("[]", "no JSON object"),
            ("{", "no JSON object"),
            ("{}", "prompt: it is missing"),
            (r#"{"prompt": 1}"#, "prompt: a text"),
            (r#"{"prompt": ["a", "b"]}"#, "prompt: one text"),
            (r#"{"prompt": []}"#, "prompt: the list is empty"),
            (r#"{"prompt": [1, -1]}"#, "prompt: a text, or a list of tokens"),
            (r#"{"prompt": "x", "n": 2}"#, "n: only 1 is"),
            (r#"{"prompt": "x", "echo": true}"#, "echo: only false"),
            (r#"{"prompt": "x", "logprobs": 3}"#, "logprobs: only"),
            (r#"{"prompt": "x", "presence_penalty": 0.5}"#, "presence_penalty: only"),
            (r#"{"prompt": "x", "max_tokens": 0}"#, "max_tokens: 0 is not"),
            (r#"{"prompt": "x", "max_tokens": 16385}"#, "between 1 and 16384"),
            (r#"{"prompt": "x", "temperature": 3}"#, "temperature: 3 is no number from 0 to 2"),
            (r#"{"prompt": "x", "top_p": 0}"#, "top_p: 0 is no number above 0 to 1"),
            (r#"{"prompt": "x", "seed": 1.5}"#, "seed: 1.5"),
            (r#"{"prompt": "x", "stream": "yes"}"#, "stream: true or false"),
            (r#"{"prompt": "x", "stop": ["1", "2", "3", "4", "5"]}"#, "stop: a text or at most 4"),
            (r#"{"prompt": "x", "model": "gpt-4"}"#, "there is no model \"gpt-4\" here, only \"swarm\""),
        ] {
            let error = read(body, false).unwrap_err().body()["error"]["message"].to_string();
            let error = error.replace("\\\"", "\"");
            assert!(error.contains(words), "{body}: {error}");
        }
        for (body, words) in [
            ("{}", "messages: a list"),
            (r#"{"messages": []}"#, "messages: at least one"),
            (r#"{"messages": [{"role": "tool", "content": "x"}]}"#, "messages[0].role"),
            (
                r#"{"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}"#,
                "messages[0].content",
            ),
            (r#"{"messages": ["x"]}"#, "messages[0].content"),
            (r#"{"messages": [{"role": "user", "content": "x"}], "tools": [{}]}"#, "tools: only"),
        ] {
            let error = read(body, true).unwrap_err().body()["error"]["message"].to_string();
            assert!(error.contains(words), "{body}: {error}");
        }
    }
}
