//! The table against plain models.

mod lives;
mod site;
mod table;
