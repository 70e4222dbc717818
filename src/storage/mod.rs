//! How do the pieces of one torrent get from a device and onto it?
//!
//! | file | question |
//! | --- | --- |
//! | `places` | where the bytes of a piece lie; the next kinds of source belong beside it |
//! | `disk` | `Storage`: what becomes of one `Work` of the core, and when it is done |
//! | `cut` | which bytes of a transfer are whole sectors, and which are edges |
//! | `requests` | which requests are in flight, and which reads become one request |
//! | `open_slices` | which files of a directory are open |
//! | `packed` | how bytes of a packed image are read and decoded |
//! | `edges` | which of the sectors that are only partly ours may be in flight at once |
//! | `zeroing` | whether the device makes a piece zeros by itself |
//! | `hasher` | the SHA-1 of pieces whose bytes arrive in steps |
//! | `reader` | the hash of every piece on a device |
//! | `holes` | which pieces lie in holes of a file, so that nobody need read them |
//! | `sectors` | a few bytes at any place, with the loop waiting for them |
//! | `partition_table` | which table a disk has |
//! | `table_fit` | how that table is fitted to a disk of another size |
//! | `leftovers` | what else on a target would decide what it is, and how that is removed |

mod cut;
pub mod disk;
mod edges;
pub mod hasher;
mod holes;
pub mod leftovers;
mod open_slices;
mod packed;
pub mod partition_table;
pub mod places;
pub mod reader;
pub mod requests;
pub mod sectors;
pub mod table_fit;
mod zeroing;
