// Work beside a computation that has the processors.
#pragma once

namespace ll {

// The calling thread runs only where others leave a processor idle (nice 19): a product of matrices
// on all cores waits for its slowest thread, so that a second of a core taken from one is a second
// lost for all. For good: without privileges a thread cannot come back. Where the kernel refuses,
// nothing happens.
void StayInBackground();

}  // namespace ll
