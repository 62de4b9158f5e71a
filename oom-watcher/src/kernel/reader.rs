//! The ring buffer, awaited: no timer, nothing else in its way.

use std::{io, os::fd::AsRawFd as _};

use aya::maps::{MapData, RingBuf};
use tokio::io::{Interest, unix::AsyncFd};

/// Records taken at one go before tasks beside the pipeline and a signal to stop get their turn; more wait in the ring buffer. At some
/// 10 µs a kill that is 2.6 ms, and a third of the kills that a default buffer holds.
pub const BATCH_MAX: usize = 256;

/// Reads records as they come.
#[expect(missing_debug_implementations, reason = "aya's maps have none")]
pub struct Reader {
    events: AsyncFd<RingBuf<MapData>>,
}

impl Reader {
    /// Registers the ring buffer with the runtime.
    pub fn new(events: RingBuf<MapData>) -> io::Result<Self> {
        debug_assert!(events.as_raw_fd() >= 0, "a map has a file descriptor");
        // SAFETY: the descriptor belongs to the ring buffer's map, which the AsyncFd owns: it stays open and the same until
        // the registration ends.
        let events = unsafe { AsyncFd::register_with_interest(events, Interest::READABLE) }.map_err(io::Error::from)?;
        Ok(Self { events })
    }

    /// Waits until there is something and hands each record of a batch to `take`; how many there were.
    ///
    /// Cancel safety: records are consumed only after the wait, without another await.
    pub async fn batch(&mut self, mut take: impl FnMut(&[u8])) -> io::Result<usize> {
        let mut guard = self.events.readable_mut().await?;
        let mut count = 0;
        while count < BATCH_MAX {
            let Some(record) = guard.get_inner_mut().next() else {
                guard.clear_ready();
                break;
            };
            take(&record);
            count += 1;
        }
        Ok(count)
    }

    /// Hands over at most `limit` of what is there now, without waiting; how many there were.
    pub fn take(&mut self, limit: usize, mut take: impl FnMut(&[u8])) -> usize {
        let events = self.events.get_mut();
        let mut count = 0;
        while count < limit {
            let Some(record) = events.next() else { break };
            take(&record);
            count += 1;
        }
        count
    }
}
