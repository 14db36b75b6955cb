//! How many merchants may have a large answer in memory at a time. All merchants together stay within the memory of a small
//! container, however large their pages are.

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
};

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::domain::MerchantId;

/// An answer of more bytes is large.
pub const LARGE: usize = 4 << 20;

/// Merchants with large answers at a time.
const STORES: usize = 4;

/// The merchants with large answers.
#[derive(Debug)]
pub struct LargeAnswers {
    room: Arc<Semaphore>,
    stores: Mutex<HashMap<MerchantId, Weak<OwnedSemaphorePermit>>>,
}

/// The room for the large answers of one merchant, until the last of them is dropped.
pub type Room = Arc<OwnedSemaphorePermit>;

impl Default for LargeAnswers {
    fn default() -> Self {
        Self { room: Arc::new(Semaphore::new(STORES)), stores: Mutex::default() }
    }
}

impl LargeAnswers {
    /// Waits for room. A merchant that has room does not wait, so that no two merchants wait for each other.
    pub async fn room_for(&self, merchant: MerchantId) -> Option<Room> {
        if let Some(room) = self.stores.lock().get(&merchant).and_then(Weak::upgrade) {
            return Some(room);
        }
        // The semaphore is never closed.
        let room = Arc::new(Arc::clone(&self.room).acquire_owned().await.ok()?);
        let mut stores = self.stores.lock();
        stores.retain(|_, room| room.strong_count() > 0);
        stores.insert(merchant, Arc::downgrade(&room));
        Some(room)
    }
}

/// A body, and the room that it takes.
pub struct Body {
    pub bytes: Vec<u8>,
    _room: Option<Room>,
}

impl Body {
    pub fn new(bytes: Vec<u8>, room: Option<Room>) -> Self {
        Self { bytes, _room: room }
    }
}

impl AsRef<[u8]> for Body {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn a_merchant_with_room_does_not_wait() {
        let answers = LargeAnswers::default();
        let mut rooms = Vec::new();
        for store in 0..4 {
            rooms.push(answers.room_for(MerchantId(store)).now_or_never().unwrap());
        }
        assert!(answers.room_for(MerchantId(4)).now_or_never().is_none());
        let again = answers.room_for(MerchantId(2)).now_or_never().unwrap();
        rooms.remove(2);
        assert!(answers.room_for(MerchantId(4)).now_or_never().is_none(), "its second answer is still there");
        drop(again);
        assert!(answers.room_for(MerchantId(4)).now_or_never().is_some());
    }
}
