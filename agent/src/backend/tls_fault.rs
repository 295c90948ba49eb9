//! What TLS has against a server: found by type among an error and its sources, said in our own words, with what to try.

use std::error::Error;
use std::io;

use rustls::CertificateError as Certificate;

/// Returns what TLS says of an error, if that is what went wrong.
pub(super) fn of<'e>(error: &'e (dyn Error + 'static)) -> Option<&'e rustls::Error> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(fault) = error.downcast_ref() {
            return Some(fault);
        }
        // An error of I/O passes over what it wraps when it is asked for its source.
        let wrapped = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        next = match wrapped {
            Some(wrapped) => Some(wrapped),
            None => error.source(),
        };
    }
    None
}

/// Says what is wrong with a server's certificate, or with TLS at all.
pub(super) fn in_words(fault: &rustls::Error) -> String {
    match fault {
        rustls::Error::InvalidCertificate(certificate) => match certificate {
            Certificate::Expired | Certificate::ExpiredContext { .. } => "its certificate has expired".into(),
            Certificate::NotValidYet | Certificate::NotValidYetContext { .. } => {
                "its certificate is not valid yet".into()
            }
            Certificate::UnknownIssuer => "its certificate is of an authority that is not known here".into(),
            // An authority that was made anew under its old name.
            Certificate::BadSignature => {
                "its certificate is signed with another key than its authority has here".into()
            }
            Certificate::NotValidForName | Certificate::NotValidForNameContext { .. } => {
                "its certificate is for another host".into()
            }
            Certificate::Other(_) => "its certificate cannot be one of a server: an authority's own, perhaps".into(),
            other => format!("its certificate is refused ({other})"),
        },
        rustls::Error::InvalidMessage(_) => "what answers there speaks no TLS".into(),
        rustls::Error::AlertReceived(alert) => format!("it refused us ({alert:?}); a certificate of ours may be due"),
        other => other.to_string(),
    }
}

/// Says what to try. `trust` names what makes an authority known, `address` where the server's name is written.
pub(super) fn advice(fault: &rustls::Error, trust: &str, address: &str) -> String {
    match fault {
        rustls::Error::InvalidCertificate(certificate) => match certificate {
            Certificate::Expired | Certificate::ExpiredContext { .. } => {
                "renew the certificate there; if it is a good one, set the clock of this machine".into()
            }
            Certificate::NotValidYet | Certificate::NotValidYetContext { .. } => {
                "is the clock of this machine right?".into()
            }
            Certificate::NotValidForName | Certificate::NotValidForNameContext { .. } => {
                format!("write the name that the certificate is for into {address}, or get it one for this name")
            }
            Certificate::Other(_) => {
                format!(
                    "give the server a certificate of its own, signed by an authority, and set {trust} to that authority"
                )
            }
            _ => format!("set {trust} to the authority of its certificate, as PEM"),
        },
        _ => format!("are scheme, host and port right in {address}? what stands between may speak for it, too"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_is_found_however_deep_it_lies() {
        let fault = || rustls::Error::InvalidCertificate(Certificate::Expired);
        assert_eq!(of(&fault()), Some(&fault()));
        let once = io::Error::new(io::ErrorKind::InvalidData, fault());
        assert_eq!(of(&once), Some(&fault()));
        assert_eq!(of(&io::Error::other(once)), Some(&fault()));
        assert_eq!(of(&io::Error::other("expired")), None);
        assert_eq!(of(&io::Error::from(io::ErrorKind::InvalidData)), None);
    }

    #[test]
    fn every_fault_is_said_in_words_with_what_to_try() {
        use rustls::{AlertDescription, InvalidMessage};
        let check = |fault: rustls::Error, words: &str, hint: &str| {
            assert!(in_words(&fault).contains(words), "{}", in_words(&fault));
            let advice = advice(&fault, "`ca_file`", "`url`");
            assert!(advice.contains(hint), "{advice}");
        };
        let certificate = |error| rustls::Error::InvalidCertificate(error);
        check(certificate(Certificate::Expired), "has expired", "renew");
        check(certificate(Certificate::NotValidYet), "not valid yet", "clock");
        check(certificate(Certificate::NotValidForName), "for another host", "`url`");
        check(certificate(Certificate::UnknownIssuer), "authority that is not known", "`ca_file`");
        check(certificate(Certificate::BadSignature), "another key", "`ca_file`");
        check(certificate(Certificate::Revoked), "refused (", "`ca_file`");
        check(rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType), "no TLS", "port");
        check(rustls::Error::AlertReceived(AlertDescription::HandshakeFailure), "refused us", "`url`");
    }
}
