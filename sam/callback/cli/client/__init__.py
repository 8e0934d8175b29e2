"""A client of the service: what ``send`` and ``simulate`` share."""
