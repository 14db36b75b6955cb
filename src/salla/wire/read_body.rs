//! Reads the body of a response, as far as it is not absurdly large.

use reqwest::Response;
use reqwest_middleware::{Error, Result};

use super::error::Broken;

/// No page of 60 orders comes near this.
const MAX_MIB: usize = 8;

/// The same in bytes.
pub const MOST_BYTES: usize = MAX_MIB << 20;

/// The least that is allocated.
const ROOM: usize = 16 << 10;

/// The largest buffer that is allocated at once, independent of the announced length.
const MOST_ROOM: usize = 1 << 20;

/// A body that is read.
pub struct BodyReader {
    response: Response,
    /// The bytes that have been read.
    pub bytes: Vec<u8>,
}

impl BodyReader {
    /// Nothing has been read yet.
    pub fn new(response: Response) -> Self {
        // A buffer that grows leaves what it held behind: the token endpoint's answers are smaller than this.
        let announced = response.content_length().and_then(|bytes| usize::try_from(bytes).ok()).unwrap_or(0);
        Self { response, bytes: Vec::with_capacity(announced.clamp(ROOM, MOST_ROOM)) }
    }

    /// Reads on until there are more than `most` bytes, or to the end: true.
    pub async fn read(&mut self, most: usize) -> Result<bool> {
        while self.bytes.len() <= most {
            match self.response.chunk().await.map_err(Error::Reqwest)? {
                Some(chunk) if self.bytes.len() + chunk.len() > MOST_BYTES => {
                    return Err(Error::middleware(Broken::TooLarge(MAX_MIB)));
                }
                Some(chunk) => self.bytes.extend_from_slice(&chunk),
                None => return Ok(true),
            }
        }
        Ok(false)
    }
}

/// Reads a body, as long as it is not absurdly large.
pub async fn whole_body(response: Response) -> Result<Vec<u8>> {
    let (body, broken) = body_so_far(response).await;
    broken.map_or(Ok(body), Err)
}

/// What came of a body, and why no more did.
pub async fn body_so_far(response: Response) -> (Vec<u8>, Option<Error>) {
    let mut reader = BodyReader::new(response);
    let broken = reader.read(MOST_BYTES).await.err();
    (reader.bytes, broken)
}
