//! `swarm peers`: whom a node has met, and whom it refuses.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;

use crate::node::{Book, unix_time};
use crate::store::Store;

/// Print which peers a node has met and where, and which it refuses for a while, and why. Both are in peers.json
/// in the node's folder.
#[derive(Args)]
pub(super) struct Peers {
    /// The node's folder.
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,

    /// Print JSON.
    #[arg(long)]
    json: bool,
}

impl Peers {
    pub(super) fn execute(self) -> Result<()> {
        Store::look(&self.dir)?;
        let now = unix_time();
        let mut book = Book::read(&self.dir);
        book.end_bans(now);
        if self.json {
            println!("{}", serde_json::to_string_pretty(&book)?);
        } else {
            print!("{}", told(&book, now));
        }
        Ok(())
    }
}

/// The book in words.
fn told(book: &Book, now: u64) -> String {
    let mut text = String::new();
    let mut known: Vec<_> = book.known.iter().collect();
    known.sort_by_key(|(_, known)| std::cmp::Reverse(known.met));
    if known.is_empty() {
        text += "no peer of this swarm has been met yet\n";
    }
    for (peer, known) in known {
        text += &format!("{peer}  met {} ago\n", span(now.saturating_sub(known.met)));
        for address in &known.addresses {
            text += &format!("    {address}\n");
        }
    }
    for (peer, ban) in &book.banned {
        text +=
            &format!("{peer}  refused for {} more: {}\n", span(ban.until.saturating_sub(now)), ban.reason);
    }
    text
}

/// A time in the largest unit that fits.
fn span(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use libp2p::PeerId;

    #[test]
    fn a_book_is_told_in_words() {
        let mut book = Book::default();
        assert_eq!(told(&book, 0), "no peer of this swarm has been met yet\n");
        let (met, bad) = (PeerId::random(), PeerId::random());
        book.met(&met, &["/ip4/10.0.0.1/tcp/4001".parse().unwrap()], 1000);
        book.ban(&bad, "wrong bytes for a blob".into(), 1900);
        assert_eq!(
            told(&book, 1300),
            format!(
                "{met}  met 5 min ago\n    /ip4/10.0.0.1/tcp/4001\n\
                 {bad}  refused for 10 min more: wrong bytes for a blob\n"
            )
        );
        assert_eq!(
            [span(119), span(7199), span(172_799), span(200_000)],
            ["119 s", "119 min", "47 h", "2 days"]
        );
    }
}
