//! Which pages of a live memory were written since they were last asked for: the room's
//! questions to the kernel.
//!
//! With userfaultfd in its asynchronous write-protect mode the kernel itself notes the first
//! write to each protected page, without a signal or another thread, and `PAGEMAP_SCAN` reports
//! the noted pages and protects them again in one go (Linux 6.7 and later). A write to a page
//! whose memory is not there yet counts as well.
//!
//! One thing the kernel forgets. A page that was *written* since the last scan, and is then
//! unmapped to reclaim memory (its contents go to the page cache's swap), leaves nothing behind
//! in the page table, as if nobody had ever touched it. A *protected* page leaves a marker. So
//! after everything was protected once, a page of which the page table knows nothing at all,
//! while the file has data for it, counts as written. Holes of the file do not, and must not be
//! looked at: reading a hole of a shared mapping fills it.
#![expect(unsafe_code, reason = "two interfaces of the kernel that nobody has wrapped")]

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::ptr;
use std::sync::Arc;

use super::bits::Bits;

/// The unit in which written memory is reported, whatever the system's page size.
pub(super) const GRAIN_BYTES: usize = 4096;
/// Ranges of pages that one system call reports.
const RANGES_PER_CALL: usize = 1024;
/// Up to so many pages are asked for one by one whether they are holes.
const PAGES_ONE_BY_ONE: usize = 1024;

// From linux/userfaultfd.h and linux/fs.h.
const UFFD_USER_MODE_ONLY: libc::c_int = 1;
const UFFD_API: u64 = 0xaa;
const UFFD_FEATURE_WP_HUGETLBFS_SHMEM: u64 = 1 << 12;
const UFFD_FEATURE_WP_UNPOPULATED: u64 = 1 << 13;
const UFFD_FEATURE_WP_ASYNC: u64 = 1 << 15;
const UFFDIO_API: u32 = 0xc018_aa3f;
const UFFDIO_REGISTER: u32 = 0xc020_aa00;
const UFFDIO_REGISTER_MODE_WP: u64 = 1 << 1;
const USERFAULTFD_IOC_NEW: u32 = 0xaa00;
const PAGEMAP_SCAN: u32 = 0xc060_6610;
const PM_SCAN_WP_MATCHING: u64 = 1 << 0;
const PM_SCAN_CHECK_WPASYNC: u64 = 1 << 1;
const PAGE_IS_WRITTEN: u64 = 1 << 1;
const PAGE_IS_PRESENT: u64 = 1 << 3;
const PAGE_IS_SWAPPED: u64 = 1 << 4;

#[repr(C)]
struct UffdioApi {
    api: u64,
    features: u64,
    ioctls: u64,
}

#[repr(C)]
struct UffdioRegister {
    start: u64,
    len: u64,
    mode: u64,
    ioctls: u64,
}

#[repr(C)]
struct ScanArguments {
    size: u64,
    flags: u64,
    start: u64,
    end: u64,
    walk_end: u64,
    vec: u64,
    vec_len: u64,
    max_pages: u64,
    category_inverted: u64,
    category_mask: u64,
    category_anyof_mask: u64,
    return_mask: u64,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct PageRange {
    start: u64,
    end: u64,
    categories: u64,
}

/// What a scan does with the pages that it reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Then {
    /// The next scan reports them again.
    Leave,
    /// The next scan reports them only if they are written again.
    Protect,
}

/// This process's access to its page tables. Exists only where tracking works.
pub(super) struct Tracking {
    pagemap: File,
}

impl Tracking {
    /// Tries it out: writes pages and looks whether exactly they are reported.
    pub(super) fn probe() -> io::Result<Arc<Tracking>> {
        let tracking = Arc::new(Tracking { pagemap: File::open("/proc/self/pagemap")? });
        let len = 16 * page_size();
        let sample = Sample::map(len)?;
        let watch = Watch::begin(&tracking, sample.base, len)?;
        let mut written = Bits::default();
        watch.written(&sample.file, len, Then::Protect, &mut written)?;
        for written_pages in [&[3usize, 4, 9][..], &[4], &[]] {
            for page in written_pages {
                sample.write(page * page_size());
            }
            written.clear();
            watch.written(&sample.file, len, Then::Protect, &mut written)?;
            let grains = page_size() / GRAIN_BYTES;
            let mut expected = Bits::default();
            for page in written_pages {
                expected.insert_range(page * grains..(page + 1) * grains);
            }
            if !written.iter().eq(expected.iter()) {
                return Err(io::Error::other("the kernel reports other pages than were written"));
            }
        }
        Ok(tracking)
    }
}

/// The watch over one shared mapping of a memory file. Ends with the mapping.
pub(super) struct Watch {
    tracking: Arc<Tracking>,
    base: *mut u8,
    /// Closing it ends the watch.
    _uffd: OwnedFd,
}

// SAFETY: `base` is an address that is told to the kernel, never used for access.
unsafe impl Send for Watch {}
// SAFETY: as above.
unsafe impl Sync for Watch {}

impl Watch {
    /// Watches the shared mapping of `len` bytes at `base`, as long as it exists.
    pub(super) fn begin(tracking: &Arc<Tracking>, base: *mut u8, len: usize) -> io::Result<Watch> {
        let uffd = userfaultfd()?;
        let mut api = UffdioApi {
            api: UFFD_API,
            features: UFFD_FEATURE_WP_ASYNC
                | UFFD_FEATURE_WP_UNPOPULATED
                | UFFD_FEATURE_WP_HUGETLBFS_SHMEM,
            ioctls: 0,
        };
        // SAFETY: the argument is the structure that this request asks for.
        check(unsafe { libc::ioctl(uffd.as_raw_fd(), UFFDIO_API as _, &raw mut api) })?;
        let mut register = UffdioRegister {
            start: base.addr() as u64,
            len: len as u64,
            mode: UFFDIO_REGISTER_MODE_WP,
            ioctls: 0,
        };
        // SAFETY: the argument is the structure that this request asks for. Watched memory
        // behaves as before: the kernel resolves the faults itself.
        check(unsafe { libc::ioctl(uffd.as_raw_fd(), UFFDIO_REGISTER as _, &raw mut register) })?;
        Ok(Watch { tracking: Arc::clone(tracking), base, _uffd: uffd })
    }

    /// Adds the numbers of the grains among the first `len` bytes of the mapping that were
    /// written since they were last protected, or never were and have data in `file`.
    pub(super) fn written(
        &self,
        file: &OwnedFd,
        len: usize,
        then: Then,
        into: &mut Bits,
    ) -> io::Result<()> {
        let known = PAGE_IS_PRESENT | PAGE_IS_SWAPPED;
        self.scan(
            len,
            then,
            PAGE_IS_WRITTEN,
            0,
            PAGE_IS_WRITTEN | known,
            |start, end, is| match is & known {
                0 => data_grains(file, start, end, into),
                _ => {
                    into.insert_range(grains(start, end));
                    Ok(())
                }
            },
        )?;
        self.scan(len, then, known, known, 0, |start, end, _| data_grains(file, start, end, into))
    }

    /// Protects the first `len` bytes.
    pub(super) fn forget(&self, len: usize) -> io::Result<()> {
        let known = PAGE_IS_PRESENT | PAGE_IS_SWAPPED;
        self.scan(len, Then::Protect, PAGE_IS_WRITTEN, 0, 0, |_, _, _| Ok(()))?;
        self.scan(len, Then::Protect, known, known, 0, |_, _, _| Ok(()))
    }

    /// Reports the ranges of pages that are of all categories of `mask`, those of `inverted`
    /// turned round.
    fn scan(
        &self,
        len: usize,
        then: Then,
        mask: u64,
        inverted: u64,
        returned: u64,
        mut report: impl FnMut(usize, usize, u64) -> io::Result<()>,
    ) -> io::Result<()> {
        let base = self.base.addr() as u64;
        let protect = if then == Then::Protect { PM_SCAN_WP_MATCHING } else { 0 };
        let mut ranges = [PageRange { start: 0, end: 0, categories: 0 }; RANGES_PER_CALL];
        let mut arguments = ScanArguments {
            size: size_of::<ScanArguments>() as u64,
            flags: protect | PM_SCAN_CHECK_WPASYNC,
            start: base,
            end: base + len as u64,
            walk_end: 0,
            vec: ranges.as_mut_ptr().expose_provenance() as u64,
            vec_len: RANGES_PER_CALL as u64,
            max_pages: 0,
            category_inverted: inverted,
            category_mask: mask,
            category_anyof_mask: 0,
            return_mask: returned,
        };
        while arguments.start < arguments.end {
            // SAFETY: the argument is the structure that this request asks for, and its `vec`
            // has room for as many ranges as it says.
            let found = check(unsafe {
                libc::ioctl(
                    self.tracking.pagemap.as_raw_fd(),
                    PAGEMAP_SCAN as _,
                    &raw mut arguments,
                )
            })?;
            for range in &ranges[..found as usize] {
                let (start, end) = (range.start - base, range.end - base);
                report(start as usize, end as usize, range.categories)?;
            }
            if arguments.walk_end <= arguments.start {
                return Err(io::Error::other("a scan of the page table makes no progress"));
            }
            arguments.start = arguments.walk_end;
        }
        Ok(())
    }
}

/// Adds the grains between two offsets of a memory file that are no holes.
pub(super) fn data_grains(
    file: &OwnedFd,
    start: usize,
    end: usize,
    into: &mut Bits,
) -> io::Result<()> {
    // Finding a hole looks at all data before it, which may be much more than was asked for.
    let page_by_page = end - start <= PAGES_ONE_BY_ONE * page_size();
    let mut at = start;
    while at < end
        && let Some(data) = seek(file, at, libc::SEEK_DATA)?.filter(|data| *data < end)
    {
        at = match page_by_page {
            true => data + page_size(),
            false => seek(file, data, libc::SEEK_HOLE)?.map_or(end, |hole| hole.min(end)),
        };
        into.insert_range(grains(data, at));
    }
    Ok(())
}

fn grains(start: usize, end: usize) -> std::ops::Range<usize> {
    start / GRAIN_BYTES..end.div_ceil(GRAIN_BYTES)
}

/// `None` beyond the last data.
fn seek(file: &OwnedFd, at: usize, whence: libc::c_int) -> io::Result<Option<usize>> {
    let at = libc::off_t::try_from(at).map_err(io::Error::other)?;
    // SAFETY: a plain system call; nobody uses the file's position.
    match unsafe { libc::lseek(file.as_raw_fd(), at, whence) } {
        found if found >= 0 => Ok(usize::try_from(found).ok()),
        _ => match io::Error::last_os_error() {
            error if error.raw_os_error() == Some(libc::ENXIO) => Ok(None),
            error => Err(error),
        },
    }
}

fn userfaultfd() -> io::Result<OwnedFd> {
    let flags = libc::O_CLOEXEC | UFFD_USER_MODE_ONLY;
    // SAFETY: plain system call.
    let fd = unsafe { libc::syscall(libc::SYS_userfaultfd, flags) };
    if let Ok(fd) = libc::c_int::try_from(fd)
        && fd >= 0
    {
        // SAFETY: the descriptor was just created and belongs to nobody else.
        return Ok(unsafe { OwnedFd::from_raw_fd(fd) });
    }
    let refused = io::Error::last_os_error();
    // A sandbox may forbid the system call and still offer the device.
    let Ok(device) = File::open("/dev/userfaultfd") else { return Err(refused) };
    // SAFETY: this request takes flags instead of a pointer.
    let fd = check(unsafe { libc::ioctl(device.as_raw_fd(), USERFAULTFD_IOC_NEW as _, flags) })?;
    // SAFETY: as above.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn page_size() -> usize {
    super::memory::page_size()
}

/// A small shared mapping to try things on.
struct Sample {
    base: *mut u8,
    len: usize,
    file: OwnedFd,
}

impl Sample {
    fn map(len: usize) -> io::Result<Sample> {
        let file = super::memory::anonymous_file(len)?;
        // SAFETY: a new mapping at an address of the kernel's choice touches nothing existing.
        let base = unsafe {
            libc::mmap(
                ptr::null_mut(),
                len,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                file.as_raw_fd(),
                0,
            )
        };
        match base {
            libc::MAP_FAILED => Err(io::Error::last_os_error()),
            base => Ok(Sample { base: base.cast(), len, file }),
        }
    }

    fn write(&self, at: usize) {
        assert!(at < self.len);
        // SAFETY: inside of the mapping, which nobody else knows.
        unsafe { self.base.add(at).write_volatile(1) };
    }
}

impl Drop for Sample {
    fn drop(&mut self) {
        // SAFETY: mapped by `map`, and nothing refers to it any more.
        unsafe { libc::munmap(self.base.cast(), self.len) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGES: usize = 5_000;

    struct Watched {
        watch: Watch,
        sample: Sample,
    }

    /// `None` on a kernel that cannot do it; there is nothing to test then.
    fn watched() -> Option<Watched> {
        let tracking = Tracking::probe().ok()?;
        let sample = Sample::map(PAGES * page_size()).unwrap();
        let watch = Watch::begin(&tracking, sample.base, sample.len).unwrap();
        Some(Watched { watch, sample })
    }

    impl Watched {
        fn write(&self, pages: impl IntoIterator<Item = usize>) {
            pages.into_iter().for_each(|page| self.sample.write(page * page_size()));
        }

        fn written(&self, then: Then) -> Vec<usize> {
            let mut bits = Bits::default();
            self.watch.written(&self.sample.file, self.sample.len, then, &mut bits).unwrap();
            let grains = page_size() / GRAIN_BYTES;
            bits.iter().filter(|grain| grain % grains == 0).map(|grain| grain / grains).collect()
        }

        /// What the kernel does to a page that it reclaims: the page table forgets it.
        fn unmap(&self, page: usize) {
            let at = self.sample.base.wrapping_add(page * page_size());
            // SAFETY: of this mapping; dropping a shared page loses nothing.
            let done = unsafe { libc::madvise(at.cast(), page_size(), libc::MADV_DONTNEED) };
            assert_eq!(done, 0);
        }
    }

    #[test]
    fn exactly_the_written_pages_are_reported_and_only_once() {
        let Some(watched) = watched() else { return };
        watched.write([7, 8]);
        assert_eq!(watched.written(Then::Protect), [7, 8]);
        assert!(watched.written(Then::Protect).is_empty());
        // More ranges than one system call reports.
        watched.write((0..PAGES).step_by(2));
        let every_other: Vec<usize> = (0..PAGES).step_by(2).collect();
        assert_eq!(watched.written(Then::Leave), every_other);
        assert_eq!(watched.written(Then::Protect), every_other);
        assert!(watched.written(Then::Protect).is_empty());
        watched.write([4_999]);
        assert_eq!(watched.written(Then::Protect), [4_999]);
    }

    #[test]
    fn a_written_page_that_the_kernel_unmaps_is_still_reported() {
        let Some(watched) = watched() else { return };
        watched.write(0..100);
        watched.written(Then::Protect);
        watched.write(10..20);
        for page in 5..15 {
            watched.unmap(page);
        }
        assert_eq!(watched.written(Then::Leave), (10..20).collect::<Vec<_>>());
        assert_eq!(watched.written(Then::Protect), (10..20).collect::<Vec<_>>());
        assert!(watched.written(Then::Protect).is_empty());
        // And protected pages that were unmapped are watched all the same.
        for page in 0..100 {
            watched.unmap(page);
        }
        assert!(watched.written(Then::Protect).is_empty());
        watched.write([3, 12, 4_000]);
        assert_eq!(watched.written(Then::Protect), [3, 12, 4_000]);
    }

    #[test]
    fn holes_are_neither_reported_nor_filled() {
        let Some(watched) = watched() else { return };
        watched.write([1_000]);
        assert_eq!(watched.written(Then::Leave), [1_000]);
        assert_eq!(watched.written(Then::Protect), [1_000]);
        let mut data = Bits::default();
        data_grains(&watched.sample.file, 0, watched.sample.len, &mut data).unwrap();
        assert_eq!(data.count(), (page_size() / GRAIN_BYTES) as u64);
    }
}
