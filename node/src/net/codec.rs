//! How a request and a response travel on their stream.
//!
//! Each stream carries one request one way and one response back, each in one frame:
//!
//! ```text
//! ┌──────────────────────┬───────────────┐
//! │ length: u32, LE      │ length bytes  │
//! └──────────────────────┴───────────────┘
//! ```
//!
//! The length is a claim of the peer's. It is compared with the limit before anything is allocated, and
//! even below the limit the buffer grows only as bytes arrive: a peer that claims a mebibyte and sends ten
//! bytes costs ten bytes.

use std::io;

use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use libp2p::{StreamProtocol, request_response};

/// Frames requests and responses, each with its own limit in bytes.
#[derive(Debug, Clone)]
pub(super) struct Codec {
    pub(super) max_request: usize,
    pub(super) max_response: usize,
}

impl request_response::Codec for Codec {
    type Protocol = StreamProtocol;
    type Request = Vec<u8>;
    type Response = Vec<u8>;

    async fn read_request<T>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<Vec<u8>>
    where
        T: AsyncRead + Unpin + Send,
    {
        read_frame(io, self.max_request).await
    }

    async fn read_response<T>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<Vec<u8>>
    where
        T: AsyncRead + Unpin + Send,
    {
        read_frame(io, self.max_response).await
    }

    async fn write_request<T>(&mut self, _: &StreamProtocol, io: &mut T, bytes: Vec<u8>) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        write_frame(io, &bytes, self.max_request).await
    }

    async fn write_response<T>(&mut self, _: &StreamProtocol, io: &mut T, bytes: Vec<u8>) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        write_frame(io, &bytes, self.max_response).await
    }
}

/// Reads one frame of at most `limit` bytes.
///
/// # Errors
/// `InvalidData` if the claimed length is above the limit, `UnexpectedEof` if the stream ends early.
async fn read_frame<T>(io: &mut T, limit: usize) -> io::Result<Vec<u8>>
where
    T: AsyncRead + Unpin + Send,
{
    let mut prefix = [0u8; 4];
    io.read_exact(&mut prefix).await.map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => io::Error::new(error.kind(), "the stream ended without a frame"),
        _ => error,
    })?;
    let length = u32::from_le_bytes(prefix);
    if usize::try_from(length).map_or(true, |length| length > limit) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("a frame of {length} bytes exceeds the limit of {limit}"),
        ));
    }
    let mut bytes = Vec::new();
    let read = io.take(u64::from(length)).read_to_end(&mut bytes).await?;
    if read as u64 != u64::from(length) {
        return Err(io::Error::new(
            io::ErrorKind::UnexpectedEof,
            format!("the stream ended after {read} of {length} bytes"),
        ));
    }
    Ok(bytes)
}

/// Writes one frame of at most `limit` bytes.
///
/// # Errors
/// `InvalidInput` if `bytes` is longer than the limit, and then nothing is written.
async fn write_frame<T>(io: &mut T, bytes: &[u8], limit: usize) -> io::Result<()>
where
    T: AsyncWrite + Unpin + Send,
{
    let length = u32::try_from(bytes.len()).ok().filter(|_| bytes.len() <= limit).ok_or_else(|| {
        io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("a frame of {} bytes exceeds the limit of {limit}", bytes.len()),
        )
    })?;
    io.write_all(&length.to_le_bytes()).await?;
    io.write_all(bytes).await?;
    io.flush().await
}

#[cfg(test)]
mod tests {
    use std::{
        pin::Pin,
        task::{Context, Poll},
    };

    use futures::executor::block_on;

    use super::*;

    /// Serves a slice at most 700 bytes at a time and remembers the largest buffer it was offered: what
    /// the reader had allocated for one read.
    struct Probe<'a> {
        left: &'a [u8],
        largest_buffer: usize,
    }

    impl AsyncRead for Probe<'_> {
        fn poll_read(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            buffer: &mut [u8],
        ) -> Poll<io::Result<usize>> {
            self.largest_buffer = self.largest_buffer.max(buffer.len());
            let count = self.left.len().min(buffer.len()).min(700);
            let (now, later) = self.left.split_at(count);
            buffer[..count].copy_from_slice(now);
            self.left = later;
            Poll::Ready(Ok(count))
        }
    }

    fn read(bytes: &[u8], limit: usize) -> (io::Result<Vec<u8>>, usize) {
        let mut probe = Probe { left: bytes, largest_buffer: 0 };
        let result = block_on(read_frame(&mut probe, limit));
        (result, probe.largest_buffer)
    }

    fn frame(length: u32, body: &[u8]) -> Vec<u8> {
        [length.to_le_bytes().as_slice(), body].concat()
    }

    #[test]
    fn a_frame_is_its_length_and_its_bytes() {
        let mut wire = Vec::new();
        block_on(write_frame(&mut wire, b"swarm", 5)).unwrap();
        // Written by hand from the drawing in the module's doc.
        assert_eq!(wire, b"\x05\x00\x00\x00swarm");
        assert_eq!(read(&wire, 5).0.unwrap(), b"swarm");

        let body: Vec<u8> = (0..100_000u32).map(|i| (i % 251) as u8).collect();
        let mut wire = Vec::new();
        block_on(write_frame(&mut wire, &body, body.len())).unwrap();
        assert_eq!(read(&wire, body.len()).0.unwrap(), body);
        assert_eq!(read(&frame(0, b""), 0).0.unwrap(), b"");
    }

    #[test]
    fn an_oversize_claim_is_refused_before_the_body_is_read() {
        for claim in [6, 1 << 20, u32::MAX] {
            let wire = frame(claim, b"123456");
            let mut probe = Probe { left: &wire, largest_buffer: 0 };
            let error = block_on(read_frame(&mut probe, 5)).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData);
            assert!(error.to_string().contains(&claim.to_string()), "{error}");
            assert_eq!(probe.largest_buffer, 4, "only the prefix may be read");
            assert_eq!(probe.left.len(), 6);
        }
    }

    #[test]
    fn a_truncated_frame_is_refused_and_costs_no_more_than_it_brought() {
        let claim = 1 << 30;
        for sent in [0usize, 1, 10, 5_000] {
            let (result, largest_buffer) = read(&frame(claim, &vec![7; sent]), claim as usize);
            assert_eq!(result.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
            // A growing vector doubles; the claimed gibibyte must never be asked for.
            assert!(largest_buffer <= 2 * sent + 64, "{largest_buffer} bytes allocated for {sent}");
        }
        for prefix in [&b""[..], b"\x05", b"\x05\x00\x00"] {
            assert_eq!(read(prefix, 100).0.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        }
    }

    #[test]
    fn bytes_after_the_frame_are_not_read() {
        let wire = frame(3, b"abcdef");
        assert_eq!(read(&wire, 10).0.unwrap(), b"abc");
    }

    #[test]
    fn an_oversize_frame_is_not_written() {
        let mut wire = Vec::new();
        let error = block_on(write_frame(&mut wire, &[0; 6], 5)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        assert!(wire.is_empty());
    }
}
