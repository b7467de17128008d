//! The dashboard and the alerts, with a real Prometheus that scrapes the program.
