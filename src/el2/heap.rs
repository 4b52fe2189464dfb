//! The byte heap: what `alloc` needs while things are set up. A fixed window of the image (linker.ld); it never grows, and
//! above all never from the page pool, which takes its book-keeping from here while its own lock is held.

use core::alloc::{GlobalAlloc, Layout};
use core::ptr::NonNull;

use faultline::sync::SpinMutex;
use linked_list_allocator::Heap;

struct ByteHeap(SpinMutex<Heap>);

#[global_allocator]
static HEAP: ByteHeap = ByteHeap(SpinMutex::new(Heap::empty()));

unsafe extern "C" {
    static mut __heap_start: u8;
    static mut __heap_end: u8;
}

/// Opens the window. Once, on the boot CPU, MMU on, before the first allocation.
pub(super) fn init() {
    let start = &raw mut __heap_start;
    let size = &raw mut __heap_end as usize - start as usize;
    // SAFETY: linker.ld reserves the window for this heap alone, and hyp_map.rs maps it writable.
    unsafe { HEAP.0.lock().init(start, size) };
}

/// Bytes in use, and in all.
pub(super) fn usage() -> (usize, usize) {
    let heap = HEAP.0.lock();
    (heap.used(), heap.size())
}

// SAFETY: `Heap` hands out disjoint blocks of its window, and the lock serializes it. EL2 masks interrupts, so the lock is
// never taken on top of itself.
unsafe impl GlobalAlloc for ByteHeap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.0
            .lock()
            .allocate_first_fit(layout)
            .map_or(core::ptr::null_mut(), NonNull::as_ptr)
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        if let Some(block) = NonNull::new(block) {
            // SAFETY: by GlobalAlloc's contract the block came from `alloc` with this layout.
            unsafe { self.0.lock().deallocate(block, layout) };
        }
    }
}
