//! `swarm serve`: what was trained, asked as OpenAI's API is.
#![cfg(unix)]

use std::fmt::Write as _;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use swarm_tests::http::{self, Reply};
use swarm_tests::program::{self, skipped};
use swarm_tests::{Place, Process, Signal};

/// A place with the folder `node` of a node that has trained and stopped.
fn trained() -> Result<Place> {
    let place = Place::with_genesis()?;
    place.node("node")?.rounds("2").start()?.success()?;
    Ok(place)
}

/// A running `swarm serve` and its address.
fn serve(place: &Place, more: &[&str]) -> Result<(Process, String)> {
    let mut command = Command::new(program::swarm()?);
    command.args(["serve", "--threads", "1", "--dir", "node", "--listen", "127.0.0.1:0"]).args(more);
    command.current_dir(place.path("")).env("OMP_NUM_THREADS", "1").env("SWARM_LOG", "error,swarm=debug");
    let mut process = Process::spawn("serve", &mut command, &place.path("node"), &place.path("serve.log"))?;
    let address = process.until("its address", |process| {
        let log = process.log().ok()?;
        let (_, rest) = log.split_once("listening at http://")?;
        Some(rest.split_once("/v1 ")?.0.to_owned())
    })?;
    Ok((process, address))
}

const COMPLETIONS: &str = "/v1/completions";
const CHAT: &str = "/v1/chat/completions";

fn ask(address: &str, path: &str, body: &Value) -> Result<Reply> {
    http::post(address, path, "", &body.to_string())
}

/// The pieces of a stream, without its end.
fn pieces(reply: &Reply) -> Result<Vec<Value>> {
    let mut events = reply.events()?;
    ensure!(events.pop().as_deref() == Some("[DONE]"), "the stream does not end: {}", reply.body);
    events.iter().map(|event| Ok(serde_json::from_str(event)?)).collect()
}

#[test]
fn clients_are_answered_whole_and_as_streams() -> Result<()> {
    let place = trained()?;
    let (mut process, address) = serve(&place, &[])?;

    let models = http::get(&address, "/v1/models", "")?;
    ensure!(models.status == 200, "{models:?}");
    assert_eq!(models.json()?["data"][0]["id"], "swarm");
    assert_eq!(http::get(&address, "/v1/models/swarm", "")?.json()?["object"], "model");

    let mut body = json!({"model": "swarm", "prompt": "the round ", "max_tokens": 40, "seed": 7});
    let whole = ask(&address, COMPLETIONS, &body)?;
    ensure!(whole.status == 200, "{whole:?}");
    ensure!(!whole.headers.iter().any(|header| header.contains("access-control")), "{whole:?}");
    let answer = whole.json()?;
    let text = answer["choices"][0]["text"].as_str().context("no text")?.to_owned();
    assert_eq!(answer["object"], "text_completion");
    assert_eq!(answer["choices"][0]["finish_reason"], "length");
    assert_eq!(answer["usage"], json!({"prompt_tokens": 10, "completion_tokens": 40, "total_tokens": 50}));
    let again = ask(&address, COMPLETIONS, &body)?.json()?;
    assert_eq!(again["choices"][0]["text"], text, "the same seed");
    body["seed"] = 8.into();
    assert_ne!(ask(&address, COMPLETIONS, &body)?.json()?["choices"][0]["text"], text);

    body["seed"] = 7.into();
    body["stream"] = true.into();
    body["stream_options"] = json!({"include_usage": true});
    let stream = ask(&address, COMPLETIONS, &body)?;
    ensure!(stream.headers.iter().any(|header| header == "content-type: text/event-stream"), "{stream:?}");
    let mut parts = pieces(&stream)?;
    let usage = parts.pop().context("no usage")?;
    assert_eq!((&usage["usage"], &usage["choices"]), (&answer["usage"], &json!([])));
    assert!(parts.len() > 5, "it comes in pieces: {parts:?}");
    assert_eq!(parts.last().context("no end")?["choices"][0]["finish_reason"], "length");
    let joined: String = parts.iter().filter_map(|part| part["choices"][0]["text"].as_str()).collect();
    assert_eq!(joined, text);

    // A text that ends before what it would have gone on with.
    let stop: String = text.chars().skip(12).take(2).collect();
    let before = text.split(&stop).next().unwrap_or_default();
    let stopping =
        json!({"prompt": "the round ", "max_tokens": 40, "seed": 7, "stop": ["nowhere to be found", stop]});
    let stopped = ask(&address, COMPLETIONS, &stopping)?.json()?;
    assert_eq!(stopped["choices"][0]["finish_reason"], "stop");
    assert_eq!(stopped["choices"][0]["text"], before);

    let mut talk = json!({
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "A delta?"}],
        "max_tokens": 30, "seed": 3, "temperature": 0.5, "top_p": 0.9, "user": "somebody",
    });
    let whole = ask(&address, CHAT, &talk)?.json()?;
    assert_eq!(
        (&whole["object"], &whole["choices"][0]["message"]["role"]),
        (&json!("chat.completion"), &json!("assistant"))
    );
    // "Be brief.\n\nUser: A delta?\nAssistant:" has 36 bytes.
    assert_eq!(whole["usage"]["prompt_tokens"], 36);
    talk["stream"] = true.into();
    let parts = pieces(&ask(&address, CHAT, &talk)?)?;
    assert_eq!(parts[0]["choices"][0]["delta"]["role"], "assistant");
    assert_eq!(parts[0]["object"], "chat.completion.chunk");
    let joined: String =
        parts.iter().filter_map(|part| part["choices"][0]["delta"]["content"].as_str()).collect();
    assert_eq!(whole["choices"][0]["message"]["content"], joined);
    process.interrupt()?;
    Ok(())
}

#[test]
fn mistakes_and_strangers_are_refused_and_the_next_request_is_answered() -> Result<()> {
    let place = trained()?;
    let (mut process, address) = serve(&place, &["--name", "mine"])?;
    let good = json!({"prompt": "x", "max_tokens": 1});
    for (path, body, status, words) in [
        (COMPLETIONS, json!({"prompt": "x", "n": 2}), 400, &["invalid_request_error", "\"n\"", "only 1"][..]),
        (COMPLETIONS, json!({"prompt": "x", "temperature": -1}), 400, &["temperature"]),
        (COMPLETIONS, json!({"prompt": [256]}), 400, &["token 256 is not in the model's vocabulary"]),
        (
            COMPLETIONS,
            json!({"prompt": "x".repeat(65)}),
            400,
            &["context_length_exceeded", "65 tokens", "64"],
        ),
        (
            CHAT,
            json!({"messages": [{"role": "user", "content": "x".repeat(60)}], "stream": true}),
            400,
            &["context_length_exceeded", "messages"],
        ),
        (CHAT, json!({"prompt": "x"}), 400, &["messages"]),
        (COMPLETIONS, json!({"prompt": "x", "model": "gpt-4"}), 404, &["model_not_found", "mine"]),
        ("/v1/embeddings", json!({}), 404, &["there is nothing here"]),
    ] {
        let reply = ask(&address, path, &body)?;
        reply.refused(status, words).with_context(|| format!("{path} {body}"))?;
        ensure!(reply.json()?["error"]["message"].is_string(), "{reply:?}");
    }
    http::post(&address, COMPLETIONS, "", "{\"prompt\"")?.refused(400, &["no JSON"])?;
    http::get(&address, COMPLETIONS, "")?.refused(405, &["error"])?;
    http::get(&address, "/v1/models/other", "")?.refused(404, &["model_not_found"])?;

    // More than may be: as it is claimed, and as it comes.
    let mebibyte = 1 << 20;
    let claimed = format!(
        "POST {COMPLETIONS} HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\nConnection: close\r\n\
         Content-Length: {}\r\n\r\n",
        mebibyte + 1
    );
    http::send(&address, claimed.as_bytes())?.reply()?.refused(413, &["1048576 bytes"])?;
    let mut chunked = format!(
        "POST {COMPLETIONS} HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\nConnection: close\r\n\
         Transfer-Encoding: chunked\r\n\r\n"
    );
    // Without its end, which would come too late.
    write!(chunked, "{:x}\r\n{}", mebibyte + 1, " ".repeat(mebibyte + 1))?;
    http::send(&address, chunked.as_bytes())?.reply()?.refused(413, &["1048576 bytes"])?;
    let long = format!("GET /v1/models HTTP/1.1\r\nHost: {address}\r\nX: {}\r\n\r\n", "x".repeat(200_000));
    let reply = http::send(&address, long.as_bytes())?.reply();
    // It may close the connection before it was sent all.
    ensure!(reply.as_ref().map_or(true, |reply| reply.status == 431), "{reply:?}");

    // What a web page could make a browser send.
    let form = format!(
        "POST {COMPLETIONS} HTTP/1.1\r\nHost: {address}\r\nContent-Type: text/plain\r\nConnection: close\r\n\
         Content-Length: {}\r\n\r\n{good}",
        good.to_string().len()
    );
    http::send(&address, form.as_bytes())?.reply()?.refused(415, &["application/json"])?;
    for hosts in ["Host: evil.example\r\n", "", "Host: 127.0.0.1\r\nHost: evil.example\r\n"] {
        let request = format!("GET /v1/models HTTP/1.1\r\n{hosts}Connection: close\r\n\r\n");
        let reply = http::send(&address, request.as_bytes())?.reply()?;
        ensure!([400, 403].contains(&reply.status) && !reply.body.contains("mine"), "{hosts}: {reply:?}");
    }
    let asked = format!(
        "OPTIONS {COMPLETIONS} HTTP/1.1\r\nHost: {address}\r\nOrigin: http://evil.example\r\n\
         Access-Control-Request-Method: POST\r\nConnection: close\r\n\r\n"
    );
    let reply = http::send(&address, asked.as_bytes())?.reply()?;
    ensure!(!reply.headers.iter().any(|header| header.starts_with("access-control")), "{reply:?}");

    let request = "GET /v1/models HTTP/1.1\r\nHost: localhost:1\r\nConnection: close\r\n\r\n";
    assert_eq!(http::send(&address, request.as_bytes())?.reply()?.status, 200);
    assert_eq!(ask(&address, COMPLETIONS, &good)?.status, 200);
    let second = place.swarm(["serve", "--threads", "1", "--dir", "node", "--listen", &address])?;
    second.refused(1, &["cannot listen at", "is the port taken?"])?;
    process.interrupt()?;
    let open = place.swarm(["serve", "--threads", "1", "--dir", "node", "--listen", "0.0.0.0:0"])?;
    open.refused(1, &["can be reached by others", "--let-others-in"])
}

#[test]
fn who_does_not_show_the_key_is_not_answered() -> Result<()> {
    let place = trained()?;
    let (mut process, address) = serve(&place, &["--api-key", "bees and honey"])?;
    for headers in ["", "Authorization: Bearer bees\r\n", "Authorization: bees and honey\r\n"] {
        http::get(&address, "/v1/models", headers)?.refused(401, &["invalid_api_key"])?;
        let body = json!({"prompt": "x"}).to_string();
        http::post(&address, COMPLETIONS, headers, &body)?.refused(401, &["invalid_api_key"])?;
    }
    let key = "Authorization: Bearer bees and honey\r\n";
    assert_eq!(http::get(&address, "/v1/models", key)?.status, 200);
    process.interrupt()?;
    Ok(())
}

#[test]
fn who_goes_away_is_not_written_for_and_who_waits_in_vain_is_told() -> Result<()> {
    let place = trained()?;
    let (mut process, address) = serve(&place, &["--queue", "1"])?;
    let short = json!({"prompt": "x", "max_tokens": 1});
    let count = |process: &Process, words: &str| Some(process.log().ok()?.matches(words).count());
    for stream in [true, false] {
        let long = json!({"prompt": "x", "max_tokens": 16384, "stream": stream}).to_string();
        let send = || http::send(&address, http::posted(&address, COMPLETIONS, "", &long).as_bytes());
        let before = ["nobody waits for an answer", "at most 16384 tokens", "a request is refused"]
            .map(|words| count(&process, words));
        let first = send()?;
        process.until("the first request", |process| {
            (count(process, "at most 16384 tokens") > before[1]).then_some(())
        })?;
        // One of these waits, and for the other there is no place.
        let others = (send()?, send()?);
        process.until("a full queue", |process| {
            (count(process, "a request is refused") > before[2]).then_some(())
        })?;
        let refused = ask(&address, COMPLETIONS, &short)?;
        drop((first, others));
        refused.refused(429, &["rate_limit_exceeded", "1 requests are waiting"])?;
        ensure!(refused.headers.iter().any(|header| header == "retry-after: 1"), "{refused:?}");
        process.until("a word about who went away", |process| {
            (count(process, "nobody waits for an answer") > before[0]).then_some(())
        })?;
        let reply = process.until("a free place", |_| {
            ask(&address, COMPLETIONS, &short).ok().filter(|reply| reply.status != 429)
        })?;
        assert_eq!(reply.status, 200, "{reply:?}");
    }
    process.interrupt()?;
    Ok(())
}

#[test]
fn what_is_under_way_when_it_is_stopped_is_finished_and_newer_models_are_taken() -> Result<()> {
    let place = trained()?;
    let (mut process, address) = serve(&place, &[])?;
    let body = json!({"prompt": "the ", "max_tokens": 30, "temperature": 0});
    let old = ask(&address, COMPLETIONS, &body)?.json()?["choices"][0]["text"].clone();
    // The node goes on beside it.
    place.node("node")?.rounds("+30").start()?.success()?;
    let new = ask(&address, COMPLETIONS, &body)?.json()?["choices"][0]["text"].clone();
    ensure!(process.log()?.contains("now this device's own model"), "{}", process.log()?);
    assert_ne!(old, new, "32 rounds and 2 predict the same");

    let long = json!({"prompt": "x", "max_tokens": 1500, "stream": true}).to_string();
    let mut under_way = http::send(&address, http::posted(&address, COMPLETIONS, "", &long).as_bytes())?;
    under_way.wait_for_line("data: ")?;
    process.signal(Signal::Interrupt)?;
    under_way.wait_for_line("data: [DONE]")?;
    process.success()?;
    ensure!(http::get(&address, "/v1/models", "").is_err(), "it still answers");
    Ok(())
}

/// What has to work with the client that others use.
const CLIENT: &str = r#"
import sys
import openai

client = openai.OpenAI(base_url=sys.argv[1], api_key="any", max_retries=0)
assert [model.id for model in client.models.list()] == ["swarm"]
assert client.models.retrieve("swarm").object == "model"

ask = dict(model="swarm", prompt="the round ", max_tokens=40, seed=7)
whole = client.completions.create(**ask)
assert whole.choices[0].finish_reason == "length" and len(whole.choices[0].text) > 20, whole
assert (whole.usage.prompt_tokens, whole.usage.completion_tokens) == (10, 40), whole
assert client.completions.create(**ask).choices[0].text == whole.choices[0].text
pieces = list(client.completions.create(**ask, stream=True))
assert "".join(piece.choices[0].text for piece in pieces) == whole.choices[0].text
assert len(pieces) > 5

talk = dict(model="swarm", messages=[{"role": "system", "content": "Be brief."}, {"role": "user", "content": "A delta?"}],
            max_tokens=30, temperature=0.5, top_p=0.9, seed=3, stop=["\n\n"])
whole = client.chat.completions.create(**talk)
assert whole.choices[0].message.role == "assistant" and whole.choices[0].finish_reason in ("stop", "length"), whole
pieces = list(client.chat.completions.create(**talk, stream=True, stream_options={"include_usage": True}))
text = "".join(piece.choices[0].delta.content or "" for piece in pieces if piece.choices)
assert text == whole.choices[0].message.content, (text, whole)
assert pieces[-1].usage == whole.usage, (pieces[-1], whole)

for wrong, kind in [
    (dict(ask, n=2), openai.BadRequestError),
    (dict(ask, prompt="x" * 65), openai.BadRequestError),
    (dict(ask, temperature=3), openai.BadRequestError),
    (dict(ask, model="gpt-4"), openai.NotFoundError),
]:
    try:
        client.completions.create(**wrong)
    except kind as error:
        assert error.body["message"], error
    else:
        raise AssertionError(f"{wrong} was answered")

# A client that loses interest: the next one is answered.
stream = client.completions.create(model="swarm", prompt="x", max_tokens=16384, stream=True)
next(iter(stream))
stream.close()
assert client.completions.create(model="swarm", prompt="x", max_tokens=1).usage.completion_tokens == 1
print("openai", openai.__version__, "is content")
"#;

#[test]
fn openais_own_client_works() -> Result<()> {
    let Some(python) = std::env::var_os("SWARM_PYTHON") else {
        skipped("SWARM_PYTHON is not set: name a Python that has the package openai");
        return Ok(());
    };
    if !Command::new(&python).args(["-c", "import openai"]).output()?.status.success() {
        skipped("SWARM_PYTHON cannot import openai: python3 -m venv .venv && .venv/bin/pip install openai");
        return Ok(());
    }
    let place = trained()?;
    let (mut process, address) = serve(&place, &[])?;
    let script = place.file("client.py", CLIENT)?;
    let done = Command::new(&python).arg(script).arg(format!("http://{address}/v1")).output()?;
    let said = String::from_utf8_lossy(&done.stdout).into_owned() + &String::from_utf8_lossy(&done.stderr);
    ensure!(done.status.success() && said.contains("is content"), "{said}\n{}", process.log()?);
    process.interrupt()?;
    Ok(())
}
