//! Where cached values lie: pages of their own, in no core file and in no child, locked as far as the limit allows, and
//! wiped the moment that a value goes.
//!
//! The heap would do for none of that: a page of it holds many things, and whoever locks or unmaps one locks or unmaps
//! all. A region that becomes empty is given back to the kernel.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::process::{Resource, getrlimit};

use crate::sys::pages::{self, Keeping};
use crate::sys::wiping::wipe;

/// Bytes of the first region. Pages that are not used take no memory.
const FIRST_REGION: usize = 256 * 1024;

/// The least that is worth a mapping.
const SMALLEST_REGION: usize = 64 * 1024;

/// Bytes of a later region: small beside the usual limit on locked memory (8 MiB), so that most of it is used.
const LARGEST_REGION: usize = 1024 * 1024;

/// Sizes are rounded up to this: bytes need no alignment, and a remainder that nothing fits in costs more than it has.
const GRAIN: usize = 4;

/// Part of a region. Each knows its arena, so that a block has no pointer to it besides. This is no cycle that lasts: an
/// arena holds spans only of regions that blocks are in.
type Span = pages::Span<Arc<Arena>>;

/// A growing set of regions that blocks are taken from.
pub(crate) struct Arena {
    free: Mutex<Free>,
    next_region: AtomicUsize,
}

/// Whether the operator has been told: once for all arenas that this process ever has.
static WARNED: AtomicBool = AtomicBool::new(false);

/// What is not in use. Neighbours are always one span.
#[derive(Default)]
struct Free {
    by_address: BTreeMap<usize, Span>,
    by_size: BTreeSet<(usize, usize)>,
}

impl Free {
    fn add(&mut self, span: Span) {
        self.by_size.insert((span.len(), span.address()));
        self.by_address.insert(span.address(), span);
    }

    fn remove(&mut self, address: usize) -> Option<Span> {
        let span = self.by_address.remove(&address)?;
        self.by_size.remove(&(span.len(), address));
        Some(span)
    }

    /// Takes the smallest span that has `bytes` bytes, and leaves the rest of it.
    fn take(&mut self, bytes: usize) -> Option<Span> {
        let (_, address) = *self.by_size.range((bytes, 0)..).next()?;
        let mut span = self.remove(address)?;
        if span.len() > bytes {
            let rest = span.split_off(bytes);
            self.add(rest);
        }
        Some(span)
    }

    /// Takes a span back. A region that nobody uses any more is unmapped.
    fn give_back(&mut self, span: Span) {
        let mut span = span;
        let before = self.by_address.range(..span.address()).next_back().map(|(address, _)| *address);
        if let Some(mut before) = before.and_then(|address| self.remove(address)) {
            match before.join(span) {
                Ok(()) => span = before,
                Err(alone) => {
                    self.add(before);
                    span = alone;
                }
            }
        }
        if let Some(after) = self.remove(span.address() + span.len())
            && let Err(apart) = span.join(after)
        {
            // The next region in memory, by chance right behind this one.
            self.add(apart);
        }
        if !span.is_whole() {
            self.add(span);
        }
    }
}

impl Arena {
    /// An arena without any region yet.
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { free: Mutex::default(), next_region: AtomicUsize::new(FIRST_REGION) })
    }

    fn free(&self) -> MutexGuard<'_, Free> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns a block of at least `bytes` zeroes.
    ///
    /// Aborts where there is no memory, as the heap does.
    pub(crate) fn block(self: &Arc<Self>, bytes: usize) -> Block {
        let bytes = bytes.max(1).next_multiple_of(GRAIN);
        let mut free = self.free();
        let span = free.take(bytes).unwrap_or_else(|| {
            let region = self.next_region.load(Ordering::Relaxed);
            self.next_region.store((region * 2).min(LARGEST_REGION), Ordering::Relaxed);
            let Ok((mut span, keeping)) = self.map_region(bytes, region) else {
                std::alloc::handle_alloc_error(std::alloc::Layout::new::<u8>())
            };
            if keeping == Keeping::Unlocked && !WARNED.swap(true, Ordering::Relaxed) {
                warn_unlocked();
            }
            if span.len() > bytes {
                let rest = span.split_off(bytes);
                free.add(rest);
            }
            span
        });
        drop(free);
        Block { span }
    }

    /// Maps a region of `region` bytes, or `bytes` where that is more. Where so much cannot be locked, a smaller one that
    /// can is better: many limits are below the usual size of a region.
    fn map_region(self: &Arc<Self>, bytes: usize, region: usize) -> std::io::Result<(Span, Keeping)> {
        let unlocked = match Span::map(bytes.max(region), Arc::clone(self))? {
            (span, Keeping::Unlocked) => span,
            kept => return Ok(kept),
        };
        let mut smaller = region / 2;
        while smaller >= SMALLEST_REGION && smaller >= bytes {
            match Span::map(smaller, Arc::clone(self))? {
                (_, Keeping::Unlocked) => smaller /= 2,
                kept => return Ok(kept),
            }
        }
        Ok((unlocked, Keeping::Unlocked))
    }
}

fn warn_unlocked() {
    let limit = getrlimit(Resource::Memlock).current.map_or_else(|| "unlimited".to_owned(), |bytes| bytes.to_string());
    tracing::warn!(
        limit,
        hint = "raise the limit on locked memory (`ulimit -l`, LimitMEMLOCK=), or encrypt the swap",
        "not all cached values can be locked in memory: some may reach swap"
    );
}

/// Some bytes of an arena: wiped when dropped.
pub(crate) struct Block {
    span: Span,
}

impl Block {
    /// Returns its bytes: those asked for, and up to three more.
    pub(crate) fn bytes(&self) -> &[u8] {
        self.span.bytes()
    }

    /// Returns its bytes to be written.
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        self.span.bytes_mut()
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        wipe(self.span.bytes_mut());
        // All of it; an empty span stays behind, which keeps the mapping until this block is gone.
        let span = self.span.split_off(0);
        let arena = Arc::clone(span.home());
        arena.free().give_back(span);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_mapped(address: usize) -> bool {
        let maps = std::fs::read_to_string("/proc/self/maps").expect("/proc is mounted");
        maps.lines().any(|line| {
            let (start, end) = line.split(' ').next().and_then(|range| range.split_once('-')).expect("a range");
            let number = |text| usize::from_str_radix(text, 16).expect("hexadecimal");
            (number(start)..number(end)).contains(&address)
        })
    }

    fn filled(arena: &Arc<Arena>, bytes: usize, with: u8) -> Block {
        let mut block = arena.block(bytes);
        assert!(block.bytes().iter().all(|byte| *byte == 0), "a block is wiped before it is used again");
        block.bytes_mut().fill(with);
        block
    }

    #[test]
    fn blocks_keep_their_bytes_whatever_happens_to_their_neighbours() {
        let arena = Arena::new();
        // Any order of taking and giving back will do; this one is always the same.
        let mut seed = 1_u64;
        let mut random = |below: usize| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            usize::try_from(seed >> 33).expect("31 bits") % below
        };
        let mut blocks: Vec<(Block, u8)> = Vec::new();
        for round in 0..20_000_usize {
            if blocks.len() > 200 || (round > 15_000 && !blocks.is_empty()) {
                let (block, with) = blocks.swap_remove(random(blocks.len()));
                assert!(block.bytes().iter().all(|byte| *byte == with));
            } else {
                let with = u8::try_from(round % 255).expect("a byte") + 1;
                let most = if round % 100 == 0 { 400_000 } else { 2_000 };
                blocks.push((filled(&arena, random(most), with), with));
            }
        }
        assert!(blocks.iter().all(|(block, with)| block.bytes().iter().all(|byte| byte == with)));
        blocks.clear();
        let free = arena.free();
        assert!(free.by_address.is_empty() && free.by_size.is_empty(), "an empty region is no longer held");
    }

    #[test]
    fn the_memory_of_the_last_block_goes_back_to_the_kernel() {
        let arena = Arena::new();
        let (first, second) = (arena.block(100), arena.block(3 * LARGEST_REGION));
        let (small, large) = (first.span.address(), second.span.address());
        assert!(is_mapped(small) && is_mapped(large));
        drop(second);
        assert!(is_mapped(small) && !is_mapped(large));
        drop(first);
        assert!(!is_mapped(small));
    }

    #[test]
    fn a_core_file_and_a_child_get_none_of_it() {
        let arena = Arena::new();
        let block = filled(&arena, 10, 1);
        let maps = std::fs::read_to_string("/proc/self/smaps").expect("/proc is mounted");
        let mut flags = None;
        let mut inside = false;
        for line in maps.lines() {
            if let Some((start, end)) = line.split(' ').next().and_then(|range| range.split_once('-'))
                && let (Ok(start), Ok(end)) = (usize::from_str_radix(start, 16), usize::from_str_radix(end, 16))
            {
                inside = (start..end).contains(&block.span.address());
            }
            if let (true, Some(found)) = (inside, line.strip_prefix("VmFlags:")) {
                flags = Some(found.to_owned());
            }
        }
        let flags = flags.expect("the mapping is listed");
        assert!(flags.contains(" dd") && flags.contains(" dc"), "dontdump, dontfork: {flags}");
    }
}
