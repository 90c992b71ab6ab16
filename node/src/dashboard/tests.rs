//! Who is answered, with what, and what goes over the stream.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::routes::FILES;
use super::{Dashboard, start};
use crate::web::Flags;

const FLAGS: Flags = Flags { listen: "--dashboard", beyond: "--let-others-watch" };

fn here() -> SocketAddr {
    ([127, 0, 0, 1], 0).into()
}

fn begun(dir: &Path) -> Dashboard {
    start(dir, here(), false, FLAGS).unwrap()
}

/// Its address, and the path with its token.
fn parts(dashboard: &Dashboard) -> (String, String) {
    let rest = dashboard.url.strip_prefix("http://").unwrap();
    let (address, path) = rest.split_once('/').unwrap();
    (address.into(), format!("/{path}"))
}

fn ask(address: &str, request: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    stream
}

/// The whole answer to a request with these headers.
fn answer(address: &str, method: &str, path: &str, headers: &str, body: &str) -> String {
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n{body}"
    );
    let mut text = String::new();
    ask(address, &request).read_to_string(&mut text).unwrap();
    text
}

fn get(address: &str, path: &str) -> String {
    answer(address, "GET", path, &format!("Host: {address}\r\n"), "")
}

fn status_of(answer: &str) -> u16 {
    answer.split(' ').nth(1).unwrap().parse().unwrap()
}

#[test]
fn only_who_has_the_token_is_answered_and_only_by_a_local_name() {
    let dir = TempDir::new().unwrap();
    let dashboard = begun(dir.path());
    let (address, path) = parts(&dashboard);
    let page = get(&address, &path);
    assert_eq!(status_of(&page), 200, "{page}");
    assert!(page.contains("<!DOCTYPE html>"), "{page}");
    let head = page.split("\r\n\r\n").next().unwrap().to_lowercase();
    for header in [
        "content-security-policy: default-src 'none'; script-src 'self';",
        "x-content-type-options: nosniff",
        "referrer-policy: no-referrer",
        "cache-control: no-store",
        "content-type: text/html",
    ] {
        assert!(head.contains(header), "{header} is not in {head}");
    }
    assert!(!head.contains("access-control"), "{head}");

    let token = path.trim_matches('/');
    let wrong = "0".repeat(token.len());
    for path in [
        "/",
        "",
        "/app.js",
        "/api/live",
        "//",
        &format!("/{wrong}/"),
        &format!("/{}/", &token[1..]),
        &format!("/?{token}"),
    ] {
        let path = if path.is_empty() { "*" } else { path };
        let refused = get(&address, path);
        assert!([400, 404].contains(&status_of(&refused)), "{path}: {refused}");
        assert!(!refused.contains("DOCTYPE") && !refused.contains(token), "{path}: {refused}");
    }
    let elsewhere = answer(&address, "GET", &path, "Host: evil.example\r\n", "");
    assert_eq!(status_of(&elsewhere), 403, "{elsewhere}");
    assert!(!elsewhere.contains("DOCTYPE"));
    let moved = get(&address, path.trim_end_matches('/'));
    assert!(status_of(&moved) == 307 && moved.contains(&format!("location: {path}")), "{moved}");
    assert_eq!(status_of(&get(&address, &format!("{path}other.js"))), 404);
    assert_eq!(status_of(&answer(&address, "POST", &path, &format!("Host: {address}\r\n"), "")), 405);
}

#[test]
fn the_address_stays_and_a_port_that_is_taken_is_not_waited_for() {
    let dir = TempDir::new().unwrap();
    let first = begun(dir.path());
    let url = first.url.clone();
    let other = begun(dir.path());
    assert_ne!(other.url, url, "its port is taken");
    drop((first, other));
    let again = begun(dir.path());
    assert_eq!(again.url, url, "it is free again");
    drop(again);
    let file = dir.path().join("dashboard");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    }
    let mut kept: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    assert_eq!(kept["token"].as_str().unwrap().len(), 32);
    // A token that somebody has shortened is no token.
    kept["token"] = "1234".into();
    fs::write(&file, kept.to_string()).unwrap();
    let drawn = begun(dir.path());
    assert!(parts(&drawn).1.len() == 34 && drawn.url != url, "{}", drawn.url);
    drop(drawn);
    fs::write(&file, "damaged").unwrap();
    assert_eq!(parts(&begun(dir.path())).1.len(), 34);
    let error = start(dir.path(), ([0, 0, 0, 0], 0).into(), false, FLAGS).unwrap_err().to_string();
    assert!(error.contains("--dashboard 0.0.0.0:0") && error.contains("--let-others-watch"), "{error}");
}

/// A stream that is open.
struct Live(BufReader<TcpStream>);

impl Live {
    fn open(dashboard: &Dashboard) -> Self {
        let (address, path) = parts(dashboard);
        let request = format!("GET {path}api/live HTTP/1.1\r\nHost: {address}\r\n\r\n");
        let mut live = Self(BufReader::new(ask(&address, &request)));
        assert!(live.line().contains(" 200 "));
        live
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        assert!(self.0.read_line(&mut line).unwrap() > 0, "the stream has ended");
        line.trim_end().to_owned()
    }

    /// The next message of this kind.
    fn next(&mut self, kind: &str) -> Value {
        while self.line() != format!("event: {kind}") {}
        serde_json::from_str(self.line().strip_prefix("data: ").unwrap()).unwrap()
    }
}

fn add(path: &Path, line: &str) {
    let mut file = fs::OpenOptions::new().create(true).append(true).open(path).unwrap();
    writeln!(file, "{line}").unwrap();
}

#[test]
fn what_the_node_writes_comes_as_it_is_written() {
    let dir = TempDir::new().unwrap();
    let (status, events, log) =
        (dir.path().join("status.json"), dir.path().join("events.jsonl"), dir.path().join("log"));
    let round = |round: u64| json!({"event": "round", "time": 1.5, "round": round, "loss": 2.5}).to_string();
    add(&events, &round(1));
    add(&events, "damaged");
    add(&log, "a line <script>");
    let dashboard = begun(dir.path());
    let mut live = Live::open(&dashboard);
    let history = live.next("history");
    assert_eq!(history["events"].as_array().unwrap().len(), 1, "{history}");
    assert_eq!(history["log"], json!(["a line <script>"]));
    fs::write(&status, r#"{"round": 2}"#).unwrap();
    let told = live.next("status");
    assert_eq!(told["status"], json!({"round": 2}));
    assert!(told["age"].as_f64().unwrap() >= 0.0);
    add(&events, &round(2));
    assert_eq!(live.next("events")[0]["round"], 2);
    add(&log, "another");
    assert_eq!(live.next("log"), json!(["another"]));
    // A status that stays the same is told again, older, so that silence means that nobody is there.
    let again = live.next("status");
    assert!(again["age"].as_f64().unwrap() >= 3.0, "{again}");

    // So many and no more; who goes away makes room.
    let mut others: Vec<Live> = (0..7).map(|_| Live::open(&dashboard)).collect();
    let (address, path) = parts(&dashboard);
    let refused = get(&address, &format!("{path}api/live"));
    assert!(status_of(&refused) == 503 && refused.contains("close one"), "{refused}");
    others.pop();
    let began = std::time::Instant::now();
    while status_of(&{
        let mut start = [0; 16];
        let request = format!("GET {path}api/live HTTP/1.1\r\nHost: {address}\r\n\r\n");
        ask(&address, &request).read_exact(&mut start).unwrap();
        String::from_utf8_lossy(&start).into_owned()
    }) != 200
    {
        assert!(began.elapsed() < Duration::from_secs(60), "no place becomes free");
        std::thread::sleep(Duration::from_millis(20));
    }
    // It ends with the node, and does not keep it.
    drop(dashboard);
    let mut rest = String::new();
    live.0.read_to_string(&mut rest).unwrap();
}

#[test]
fn the_model_is_asked_with_json_and_who_has_none_is_told() {
    let dir = TempDir::new().unwrap();
    let dashboard = begun(dir.path());
    let (address, path) = parts(&dashboard);
    let path = format!("{path}api/try");
    let good = r#"{"prompt": "a", "tokens": 5, "temperature": 1}"#;
    let post = |kind: &str, body: &str| {
        answer(&address, "POST", &path, &format!("Host: {address}\r\nContent-Type: {kind}\r\n"), body)
    };
    assert_eq!(status_of(&post("text/plain", good)), 415);
    assert_eq!(status_of(&post("application/json", "{}")), 400);
    assert_eq!(status_of(&post("application/json", &" ".repeat(70_000))), 413);
    assert_eq!(status_of(&get(&address, &path)), 405);
    let none = post("application/json", good);
    if cfg!(feature = "train") {
        assert!(status_of(&none) == 409 && none.contains("no snapshot of the model yet"), "{none}");
    } else {
        assert_eq!(status_of(&none), 501, "{none}");
    }
}

#[test]
fn the_page_has_all_its_files_and_asks_for_nothing_else() {
    let names: Vec<&str> = FILES.iter().map(|(name, ..)| *name).collect();
    let mut found: Vec<String> = Vec::new();
    for (name, _, text) in FILES {
        assert!(text.lines().count() < 500, "{name} is too long");
        // The only address is the name of a format.
        let foreign = text.replace("http://www.w3.org/2000/svg", "");
        assert!(!foreign.contains("http://") && !foreign.contains("https://"), "{name}");
        assert!(!text.contains("innerHTML") && !text.contains("style=\""), "{name}");
        let quoted = text.split('"').skip(1).step_by(2);
        let files = quoted.filter(|text| [".js", ".css", ".svg"].iter().any(|end| text.ends_with(end)));
        found.extend(files.map(|file| file.trim_start_matches("./").to_owned()));
    }
    for file in &found {
        assert!(names.contains(&file.as_str()), "{file} is not served");
    }
    for name in names.iter().filter(|name| !name.is_empty()) {
        assert!(found.iter().any(|file| file == name), "{name} is used by nothing");
    }
}
