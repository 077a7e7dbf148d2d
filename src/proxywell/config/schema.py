"""Every setting with its unit, range, default and reason. One class per section.

A field's annotation carries its range and its description; ``docs/reference/config.md``, the
command line's help and the sentences of ``SettingsError`` are made of them.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct, field

from proxywell.config.secret import Secret

DAY_S = 86_400.0


class Section(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base of every section: frozen, and an unknown name is an error.

    A cross-check is a ``__post_init__`` that raises ValueError with a sentence that names the
    fields it is about.
    """


class NetworkSettings(Section, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Which addresses may be dialled."""

    allow_private: Annotated[
        bool,
        Meta(
            description="Also loopback and private addresses, and plain http, for sources, "
            "candidates and judges; link-local and metadata addresses stay refused."
        ),
    ] = False
    allow_service_ports: Annotated[
        bool, Meta(description="Also ports of mail, databases and remote shells.")
    ] = False
    own_addresses: Annotated[
        tuple[str, ...],
        Meta(description="Addresses of ours that no judge sees; a proxy that shows one leaks."),
    ] = ()


class SourceSettings(Section, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How public lists are read."""

    lists: Annotated[
        tuple[str, ...],
        Meta(description="Paths or URLs that replace the catalogue; empty: the catalogue."),
    ] = ()
    wire_max_bytes: Annotated[
        int, Meta(ge=1_000, le=2**30, description="Most bytes of one list as sent.")
    ] = 8 * 2**20
    body_max_bytes: Annotated[
        int,
        Meta(ge=1_000, le=2**30, description="Most bytes of one list after its content coding."),
    ] = 32 * 2**20
    expansion_max_ratio: Annotated[
        int, Meta(ge=2, le=10_000, description="Most bytes that one compressed byte may become.")
    ] = 100
    total_s: Annotated[
        float, Meta(gt=0, le=600, description="Longest read of one list, in seconds.")
    ] = 20.0
    redirects_max: Annotated[
        int, Meta(ge=0, le=10, description="Redirects followed, each vetted anew.")
    ] = 3
    parallel: Annotated[int, Meta(ge=1, le=64, description="Lists read at one time.")] = 8
    per_source_max: Annotated[
        int, Meta(ge=1, le=10_000_000, description="Most candidates taken from one source.")
    ] = 250_000
    per_address_max: Annotated[
        int, Meta(ge=1, le=65_535, description="Most candidates of one address from one source.")
    ] = 64
    per_network_max: Annotated[
        int,
        Meta(
            ge=1,
            le=10_000_000,
            description="Most candidates of a /24 (IPv6: /48) from one source.",
        ),
    ] = 1024
    allow_host_names: Annotated[
        bool, Meta(description="Take names, not only addresses; vetted when resolved.")
    ] = False
    min_interval_s: Annotated[
        float,
        Meta(ge=0, le=30 * DAY_S, description="Seconds before the same list is asked again."),
    ] = 900.0
    copy_max_age_s: Annotated[
        float,
        Meta(
            ge=0,
            le=365 * DAY_S,
            description="Seconds for which the last good copy stands in for a list that fails.",
        ),
    ] = 7 * DAY_S
    contact: Annotated[
        str,
        Meta(
            pattern="^[!-'*-~]*$",
            max_length=200,
            description="A URL or mail address that is sent to sources, to reach whoever asks.",
        ),
    ] = ""
    ca_file: Annotated[
        str | None,
        Meta(description="Further certificates that vouch for https sources, in PEM."),
    ] = None


class CheckingSettings(Section, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How candidates are checked. Soft: may be deferred when others wait; hard: ends."""

    connect_soft_s: Annotated[
        float,
        Meta(
            gt=0,
            le=600,
            description="Seconds to connect; past them a probe may lose its socket to one that "
            "waits, and gets a patient second chance.",
        ),
    ] = 1.5
    connect_hard_s: Annotated[
        float, Meta(gt=0, le=600, description="Seconds to connect; past them the probe has failed.")
    ] = 8.0
    answer_soft_s: Annotated[
        float,
        Meta(
            gt=0,
            le=600,
            description="Seconds from connected to the judge's whole answer; past them a probe "
            "may be deferred.",
        ),
    ] = 8.0
    answer_hard_s: Annotated[
        float,
        Meta(
            gt=0,
            le=600,
            description="Seconds from connected to the judge's whole answer; past them the probe "
            "has failed.",
        ),
    ] = 30.0
    max_sockets: Annotated[
        int, Meta(ge=1, le=100_000, description="Most sockets open at one time, per process.")
    ] = 2_000
    source_address: Annotated[
        str | None, Meta(description="Local address to connect from; none: the system's choice.")
    ] = None
    backend: Annotated[
        Literal["auto", "epoll", "selectors"], Meta(description="How sockets are watched.")
    ] = "auto"
    judge_answer_max_bytes: Annotated[
        int, Meta(ge=1_000, le=2**20, description="Longest judge's answer that is read, in bytes.")
    ] = 16_384

    def __post_init__(self) -> None:
        if self.connect_soft_s > self.connect_hard_s:
            raise ValueError("connect_soft_s must not be above connect_hard_s")
        if self.answer_soft_s > self.answer_hard_s:
            raise ValueError("answer_soft_s must not be above answer_hard_s")


class JudgeSettings(Section, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How judges are asked and believed."""

    public_keys: Annotated[
        tuple[str, ...],
        Meta(description="Ed25519 keys of our judges, base64; current and next."),
    ] = ()
    clock_skew_s: Annotated[
        float,
        Meta(gt=0, le=600, description="Seconds by which a signed time may differ from ours."),
    ] = 30.0
    public_rate_per_s: Annotated[
        float, Meta(gt=0, le=1_000, description="Requests a second to one public judge.")
    ] = 1.0
    control_s: Annotated[
        float, Meta(gt=0, le=600, description="Seconds between direct requests to a judge.")
    ] = 10.0
    ca_file: Annotated[
        str | None, Meta(description="Certificates that vouch for https judges, in PEM.")
    ] = None
    spki_pins: Annotated[
        tuple[str, ...],
        Meta(
            description="SHA-256 of the public keys that our https judges may show, base64; "
            "current and next; empty: any that is vouched for."
        ),
    ] = ()


class RefreshSettings(Section, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How a refresh job is cut, leased and bounded."""

    lease_s: Annotated[
        float,
        Meta(gt=0, le=3_600, description="Seconds of silence after which a worker loses a chunk."),
    ] = 5.0
    beat_s: Annotated[
        float, Meta(gt=0, le=1_200, description="Seconds between two signs of life of a worker.")
    ] = 1.25
    chunk_size: Annotated[
        Annotated[int, Meta(ge=1, le=100_000)] | None,
        Meta(description="Candidates in a chunk; none: 100 to 2000, by the plan."),
    ] = None
    time_per_chunk_s: Annotated[
        float,
        Meta(gt=0, le=DAY_S, description="Seconds of the deadline's floor, per chunk and round."),
    ] = 90.0
    floor_workers: Annotated[
        int, Meta(ge=1, le=10_000, description="Workers in the formula of the deadline's floor.")
    ] = 8
    floor_factor: Annotated[
        float, Meta(ge=1, le=100, description="Allowance in the formula of the deadline's floor.")
    ] = 1.5
    floor_min_s: Annotated[
        float, Meta(gt=0, le=DAY_S, description="Seconds below which the floor never is.")
    ] = 600.0
    cap_factor: Annotated[
        float, Meta(ge=1, le=100, description="The deadline never passes the floor times this.")
    ] = 4.0
    min_count: Annotated[
        int, Meta(ge=1, le=1_000_000, description="Working proxies that make a job usable.")
    ] = 10
    shift_s: Annotated[
        float,
        Meta(gt=0, le=DAY_S, description="Seconds for which a shift goes on claiming chunks."),
    ] = 120.0
    attempt_hard_s: Annotated[
        float, Meta(gt=0, le=DAY_S, description="Longest attempt at a chunk, in seconds.")
    ] = 300.0
    attempts_max: Annotated[
        int,
        Meta(
            ge=1,
            le=100,
            description="Attempts at a chunk; those lost with their node do not count.",
        ),
    ] = 8
    hang_s: Annotated[
        float,
        Meta(
            gt=0,
            le=DAY_S,
            description="Seconds for which a check may keep a worker's loop; then it is "
            "interrupted and its chunk handed back.",
        ),
    ] = 30.0
    errors_max: Annotated[
        int, Meta(ge=1, le=100, description="Errors a chunk may raise before it is given up.")
    ] = 2
    blames_max: Annotated[
        int, Meta(ge=1, le=100, description="Workers a chunk may kill before it is split.")
    ] = 2
    split_parts: Annotated[
        int, Meta(ge=2, le=64, description="Parts of a chunk that killed its workers.")
    ] = 8
    poison_kept_s: Annotated[
        float,
        Meta(
            ge=0,
            le=365 * DAY_S,
            description="Seconds for which a candidate that ended its workers is left out of "
            "later jobs; 0: not at all.",
        ),
    ] = 7 * DAY_S
    stalled_s: Annotated[
        float,
        Meta(
            gt=0,
            le=DAY_S,
            description="Seconds with chunks to do and no live worker: then a job is stalled.",
        ),
    ] = 30.0

    def __post_init__(self) -> None:
        if self.beat_s * 3 > self.lease_s:
            raise ValueError("lease_s must cover three of beat_s, or one lost packet costs a chunk")
        if self.attempt_hard_s <= self.lease_s:
            raise ValueError("attempt_hard_s must be above lease_s, or every attempt is cut short")
        if self.stalled_s <= self.lease_s:
            raise ValueError("stalled_s must be above lease_s, or a rescue looks like a standstill")


class PoolSettings(Section, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What the pool keeps."""

    fresh_s: Annotated[
        float,
        Meta(gt=0, le=30 * DAY_S, description="Seconds for which a member that passed is fresh."),
    ] = 1800.0
    keep_checks_s: Annotated[
        float, Meta(gt=0, le=3_650 * DAY_S, description="Seconds for which single checks are kept.")
    ] = 30 * DAY_S
    geo_file: Annotated[
        str | None, Meta(description="A country or city database in MMDB form.")
    ] = None
    asn_file: Annotated[str | None, Meta(description="An ASN database in MMDB form.")] = None
    rejected_max: Annotated[
        int,
        Meta(
            ge=0,
            le=10_000_000,
            description="Endpoints that never worked whose last verdict is remembered.",
        ),
    ] = 300_000
    half_life_s: Annotated[
        float,
        Meta(
            gt=0,
            le=365 * DAY_S,
            description="After this long a check counts half in the score, seconds.",
        ),
    ] = 21_600.0
    prior_strength: Annotated[
        float,
        Meta(gt=0, le=1_000, description="How many checks the expectation of a newcomer is worth."),
    ] = 3.0
    relax_s: Annotated[
        float,
        Meta(
            gt=0,
            le=30 * DAY_S,
            description="The last check fades into the record this fast, seconds.",
        ),
    ] = 360.0
    relax_connect_s: Annotated[
        float,
        Meta(
            gt=0,
            le=30 * DAY_S,
            description="The same for members that are used by CONNECT, seconds.",
        ),
    ] = 1200.0
    horizon_s: Annotated[
        float,
        Meta(
            ge=0,
            le=30 * DAY_S,
            description="The score looks this far ahead: one round of checks, seconds.",
        ),
    ] = 480.0
    caution: Annotated[
        float,
        Meta(ge=0, le=3, description="Standard deviations taken off the score of a short record."),
    ] = 0.7
    speed_scale_ms: Annotated[
        float,
        Meta(gt=0, le=600_000, description="A member with this latency scores half, milliseconds."),
    ] = 5000.0

    def __post_init__(self) -> None:
        if self.keep_checks_s < self.fresh_s:
            raise ValueError("keep_checks_s must cover fresh_s, or fresh members lose their proof")


class RedisSettings(Section, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Where refresh jobs of the Celery engine live."""

    url: Annotated[
        Secret | None,
        Meta(
            description="redis://, rediss:// (TLS) or unix:// with user and password if any;"
            " none: a private server is started."
        ),
    ] = None
    prefix: Annotated[
        str,
        Meta(
            pattern="^[A-Za-z0-9_.-]{1,64}$",
            description="What every key and queue begins with; one per pool that shares a server.",
        ),
    ] = "proxywell"
    allow_plaintext: Annotated[
        bool,
        Meta(description="Speak to a server on another machine without TLS."),
    ] = False
    answer_s: Annotated[
        float,
        Meta(gt=0, le=60, description="Seconds after which a server that is silent is given up."),
    ] = 2.0


class MetricsSettings(Section, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Figures for Prometheus."""

    textfile: Annotated[
        str | None,
        Meta(
            description="A file for node_exporter's textfile collector, written when a job ends;"
            " its name ends in .prom."
        ),
    ] = None


class LogSettings(Section, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What is said on stderr."""

    format: Annotated[
        Literal["text", "json"], Meta(description="Short lines for people, or JSON lines.")
    ] = "text"
    level: Annotated[
        Literal["debug", "info", "warning", "error"],
        Meta(description="The least important remarks that are still shown."),
    ] = "info"


class Settings(Section, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """All settings."""

    judges: Annotated[
        tuple[str, ...],
        Meta(description="KIND:URL, kinds proxywell, azenv, httpbin, ip; empty: public ones."),
    ] = ()
    network: NetworkSettings = field(default_factory=NetworkSettings)
    sources: SourceSettings = field(default_factory=SourceSettings)
    checking: CheckingSettings = field(default_factory=CheckingSettings)
    judge: JudgeSettings = field(default_factory=JudgeSettings)
    refresh: RefreshSettings = field(default_factory=RefreshSettings)
    redis: RedisSettings = field(default_factory=RedisSettings)
    pool: PoolSettings = field(default_factory=PoolSettings)
    metrics: MetricsSettings = field(default_factory=MetricsSettings)
    log: LogSettings = field(default_factory=LogSettings)
