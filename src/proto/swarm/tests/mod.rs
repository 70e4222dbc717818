//! How does one agent behave, step by step? A test plays all the others.

mod compressing;
mod exchange;
mod hashing;
mod hostile;
mod links;
mod placing;
mod read_back;
mod requests;
mod rooms;
mod scan;
mod seats;
mod sources;
mod story;
mod waiting;
