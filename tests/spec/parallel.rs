//! Work on many items at a time, as Docker Compose takes a while to start and mostly waits for itself.

use std::sync::Mutex;

/// Does `work` on each item, some at a time, and returns what it gives in the order of the items.
pub(crate) fn each<I, T, W>(items: I, work: W) -> Vec<T>
where
    I: IntoIterator<IntoIter: Send>,
    T: Send,
    W: Fn(I::Item) -> T + Sync,
{
    let next = Mutex::new(items.into_iter().enumerate());
    let workers = std::thread::available_parallelism().map_or(1, std::num::NonZero::get) * 2;
    let mut done: Vec<(usize, T)> = std::thread::scope(|scope| {
        let work_off = || {
            let mut done = Vec::new();
            loop {
                // The lock is given back before the work starts.
                let item = next.lock().expect("taking an item does not panic").next();
                let Some((index, item)) = item else { return done };
                done.push((index, work(item)));
            }
        };
        let workers: Vec<_> = (0..workers).map(|_| scope.spawn(work_off)).collect();
        workers.into_iter().flat_map(|worker| worker.join().expect("no panic on any file")).collect()
    });
    done.sort_by_key(|(index, _)| *index);
    done.into_iter().map(|(_, given)| given).collect()
}
