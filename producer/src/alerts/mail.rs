//! By e-mail: one connection a message, encrypted but for a server on this machine.

use std::net::IpAddr;
use std::time::Duration;

use lettre::message::Mailbox;
use lettre::message::header::ContentType;
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Tls, TlsParameters};
use lettre::{AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor};
use secrecy::ExposeSecret;
use sluice_core::config::trigger::Smtp;

use super::send::{Error, causes};
use super::{Told, form};

/// The port on which a server speaks TLS from the first byte; on others it begins with STARTTLS.
const IMPLICIT_TLS: u16 = 465;

pub(super) async fn send(smtp: &Smtp, template: Option<&str>, told: &Told, timeout: Duration) -> Result<(), Error> {
    let message = message(smtp, template, told)?;
    let mut transport = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(&smtp.host)
        .port(smtp.port)
        .timeout(Some(timeout))
        .tls(encryption(&smtp.host, smtp.port).map_err(|error| Error::Mail(causes(&error)))?);
    if let (Some(username), Some(password)) = (&smtp.username, &smtp.password) {
        transport = transport.credentials(Credentials::new(username.clone(), password.expose_secret().to_owned()));
    }
    transport.build().send(message).await.map(drop).map_err(|error| Error::Mail(causes(&error)))
}

/// Nothing goes over a network in the clear: a server elsewhere that has no TLS is refused.
fn encryption(host: &str, port: u16) -> Result<Tls, lettre::transport::smtp::Error> {
    let here = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    Ok(match port {
        _ if here && port != IMPLICIT_TLS => Tls::None,
        IMPLICIT_TLS => Tls::Wrapper(TlsParameters::new(host.to_owned())?),
        _ => Tls::Required(TlsParameters::new(host.to_owned())?),
    })
}

fn message(smtp: &Smtp, template: Option<&str>, told: &Told) -> Result<Message, Error> {
    let address = |text: &str| text.parse::<Mailbox>().map_err(|error| Error::Mail(format!("`{text}` is no address: {error}")));
    let mut message = Message::builder()
        .from(address(&smtp.from)?)
        .subject(format!("Sluice: {}, {}", told.occasion.replace('_', " "), told.subject))
        .header(ContentType::TEXT_PLAIN);
    for to in &smtp.to {
        message = message.to(address(to)?);
    }
    let text = template.map_or_else(|| form::line(told), |template| form::filled(template, told).text);
    message.body(text).map_err(|error| Error::Mail(error.to_string()))
}
