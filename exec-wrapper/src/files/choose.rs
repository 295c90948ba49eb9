//! From what was asked for to what it becomes.

use super::Files;
use super::directory::{self, Directory};
use super::memfd::Memfds;
use super::name::FileName;
use super::place::{Kind, Owner, Place};
use super::private::{self, Obstacle, Private};
use super::strength::{Verdict, What};
use crate::cleaner;
use crate::report::Complaint;

/// Makes the place of the files, ready to be written: with its namespace, its cleaner or its descriptors. `names` are
/// the files that are known by now. Warnings are passed to `warn`.
pub(crate) fn make<'n>(
    place: &Place,
    owner: Owner,
    names: impl IntoIterator<Item = &'n FileName>,
    warn: &mut dyn FnMut(String),
) -> Result<(Files, Verdict), Complaint> {
    let obstacle = match place.kind {
        Kind::Memfd => {
            let memfds = Memfds::make(names, owner)?;
            return Ok((Files::Memfds(memfds), Verdict { what: What::Memfds, not_private: None }));
        }
        Kind::Dir => None,
        Kind::Private | Kind::Auto => match Private::make(place, owner, warn) {
            Ok(private) => {
                let what = What::Private { path: private.path().to_owned(), noswap: private.noswap() };
                return Ok((Files::Private(private), Verdict { what, not_private: None }));
            }
            Err(obstacle) if place.kind == Kind::Private => return Err(obstacle.complaint()),
            Err(obstacle) => Some(obstacle),
        },
    };
    let directory = Directory::make(place, owner, warn).map_err(|complaint| neither(complaint, obstacle.as_ref()))?;
    cleaner::start(&directory)?;
    let base = directory.path().parent().unwrap_or(directory.path()).to_owned();
    let what = What::Directory { base, medium: directory.medium() };
    Ok((Files::Directory(directory), Verdict { what, not_private: obstacle.map(|obstacle| obstacle.to_string()) }))
}

/// Tells what [`make`] would make, and leaves no trace. A namespace is not tried.
pub(crate) fn foresee(place: &Place, owner: Owner) -> Result<Verdict, Complaint> {
    let obstacle = match place.kind {
        Kind::Memfd => return Ok(Verdict { what: What::Memfds, not_private: None }),
        Kind::Dir => None,
        Kind::Private | Kind::Auto => match private::foresee(place, owner) {
            Ok((path, noswap)) => {
                return Ok(Verdict { what: What::Private { path, noswap }, not_private: None });
            }
            Err(obstacle) if place.kind == Kind::Private => return Err(obstacle.complaint()),
            Err(obstacle) => Some(obstacle),
        },
    };
    let (base, medium) = directory::foresee(place, owner).map_err(|complaint| neither(complaint, obstacle.as_ref()))?;
    let what = What::Directory { base, medium };
    Ok(Verdict { what, not_private: obstacle.map(|obstacle| obstacle.to_string()) })
}

/// A complaint about the directory also says why the files are not private, where that could have been had.
fn neither(complaint: Complaint, obstacle: Option<&Obstacle>) -> Complaint {
    match obstacle {
        None | Some(Obstacle::NoCapability) => complaint,
        Some(obstacle) => Complaint {
            what: format!("{} (and --files private cannot be had: {obstacle})", complaint.what),
            hint: complaint.hint,
        },
    }
}
