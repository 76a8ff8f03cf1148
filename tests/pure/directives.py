"""The options that the manuals of stunnel 5.68, nginx 1.22, HAProxy 2.6 and Perdition 2.2 list, each at its place."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Place:
    """Where options stand in a file.  `template`: a file with % at that place."""

    program: str
    name: str
    template: str
    carried: tuple[str, ...]
    """Options with a value that the gateway takes over."""
    listed: tuple[str, ...]
    """Options, or values of them, that it has no counterpart for."""
    skipped: tuple[str, ...] = ()
    """Options because of which a whole section stays with the other program."""

    def file(self, option: str) -> str:
        return self.template.replace("%", option)

    @property
    def line(self) -> int:
        return self.template.partition("%")[0].count("\n") + 1


def each(form: str, names: str) -> tuple[str, ...]:
    """`form` with each of the names."""
    return tuple(form.replace("NAME", name) for name in names.split())


_STUNNEL = """%
[imaps]
accept = 993
connect = 143
requireCert = yes
"""
_STUNNEL_SECTION = """[imaps]
accept = 993
connect = 143
cert = /a.pem
%
[others]
accept = 995
connect = 110
"""
_STUNNEL_SERVICE = (
    "CAengine CApath CRLfile CRLpath OCSP OCSPaia OCSPflag OCSPnonce PSKidentity PSKsecrets TIMEOUTbusy TIMEOUTclose"
    " TIMEOUTidle checkEmail checkHost checkIP ciphers ciphersuites config curves debug delay engineId engineNum"
    " execArgs failover ident include libwrap local logId options protocolAuthentication protocolDomain protocolHeader"
    " protocolHost protocolPassword protocolUsername pty redirect renegotiation reset retry securityLevel"
    " sessionCacheSize sessionCacheTimeout sessionResume sessiond setgid setuid sni socket sslVersionMax stack"
    " ticketKeySecret ticketMacSecret transparent verifyPeer"
)

_MAIL = """mail {
%
server { listen 143; protocol imap; }
server { listen 25; protocol smtp; }
server { listen 993 ssl proxy_protocol; protocol imap; ssl_verify_client on; }
}
"""
_MAIL_SERVER = """mail {
server { listen 25; protocol smtp;
%
}
}
"""
_MAIL_BOTH = (
    "auth_http auth_http_header auth_http_pass_client_cert auth_http_timeout error_log imap_auth imap_capabilities"
    " imap_client_buffer max_errors pop3_auth pop3_capabilities proxy_buffer proxy_pass_error_message proxy_smtp_auth"
    " proxy_timeout resolver resolver_timeout smtp_auth smtp_capabilities smtp_client_buffer smtp_greeting_delay"
    " ssl_ciphers ssl_conf_command ssl_crl ssl_dhparam ssl_ecdh_curve ssl_password_file ssl_prefer_server_ciphers"
    " ssl_session_cache ssl_session_ticket_key ssl_session_tickets ssl_session_timeout ssl_trusted_certificate"
    " ssl_verify_depth timeout include"
)
_MAIN = (
    "accept_mutex daemon debug_points env error_log include load_module lock_file master_process pcre_jit pid"
    " ssl_engine thread_pool timer_resolution user worker_cpu_affinity worker_priority"
    " worker_processes worker_rlimit_core worker_rlimit_nofile worker_shutdown_timeout working_directory"
    " google_perftools_profiles"
)
_STREAM = """stream {
upstream stores { server 10.0.0.5:143; }
server { listen 10.0.0.1:993 ssl; proxy_pass stores;
%
}
}
"""
_STREAM_LISTED = (
    "access_log allow deny error_log include js_access js_filter js_preread js_set keyval limit_conn"
    " limit_conn_dry_run limit_conn_log_level limit_conn_zone log_format open_log_file_cache preread_buffer_size"
    " preread_timeout proxy_bind proxy_buffer_size proxy_download_rate proxy_half_close"
    " proxy_next_upstream proxy_next_upstream_timeout proxy_next_upstream_tries proxy_protocol_timeout proxy_requests"
    " proxy_responses proxy_session_drop proxy_socket_keepalive proxy_ssl_certificate proxy_ssl_certificate_key"
    " proxy_ssl_ciphers proxy_ssl_conf_command proxy_ssl_crl proxy_ssl_name proxy_ssl_password_file"
    " proxy_ssl_protocols proxy_ssl_server_name proxy_ssl_session_reuse proxy_ssl_trusted_certificate proxy_ssl_verify"
    " proxy_ssl_verify_depth proxy_timeout proxy_upload_rate resolver resolver_timeout return server_name set"
    " set_real_ip_from ssl_alpn ssl_ciphers ssl_client_certificate ssl_conf_command ssl_crl ssl_dhparam ssl_ecdh_curve"
    " ssl_handshake_timeout ssl_ocsp ssl_password_file ssl_preread ssl_prefer_server_ciphers ssl_session_cache"
    " ssl_session_ticket_key ssl_session_tickets ssl_session_timeout ssl_trusted_certificate ssl_verify_depth"
    " status_zone tcp_nodelay variables_hash_bucket_size variables_hash_max_size"
)
_STREAM_TLS = _STREAM.replace("%", "proxy_ssl on; proxy_ssl_verify on;\n%")
_UPSTREAM = """stream {
upstream stores {
%
server 10.0.0.5:143; }
server { listen 10.0.0.1:993 ssl; proxy_pass stores; }
}
"""

_GLOBAL = """global
%
listen imaps
    bind :993 ssl crt mail.pem ca-file issuers.pem verify required
    server a 10.0.0.5:143
"""
_GLOBAL_LISTED = (
    "51degrees-data-file chroot cluster-secret cpu-map default-path description deviceatlas-json-file"
    " expose-experimental-directives external-check fd-hard-limit gid grace group"
    " h1-accept-payload-with-any-method h1-case-adjust h2-workaround-bogus-websocket-clients hard-stop-after"
    " httpclient.resolvers.id httpclient.ssl.verify insecure-fork-wanted issuers-chain-path localpeer log"
    " log-send-hostname log-tag lua-load mworker-max-reloads nbthread node numa-cpu-mapping pidfile"
    " pp2-never-send-local presetenv resetenv set-dumpable set-var setenv ssl-default-bind-ciphers"
    " ssl-default-bind-ciphersuites ssl-default-bind-curves ssl-default-bind-options ssl-default-server-ciphers"
    " ssl-default-server-ciphersuites ssl-default-server-options ssl-dh-param-file ssl-engine ssl-mode-async"
    " ssl-propquery ssl-provider ssl-server-verify ssl-skip-self-issued-ca stats strict-limits uid ulimit-n unix-bind"
    " unsetenv user wurfl-data-file busy-polling max-spread-checks maxcomprate maxconnrate maxpipes maxsessrate"
    " maxsslconn maxsslrate maxzlibmem profiling.tasks server-state-file spread-checks tune.bufsize tune.maxaccept"
    " tune.ssl.cachesize tune.ssl.default-dh-param tune.ssl.lifetime tune.zlib.windowsize"
)
_DEFAULTS = """defaults
%
listen imaps
    bind :993 ssl crt mail.pem
    server a 10.0.0.5:143
"""
_FRONTEND = """defaults
    mode http
frontend imaps
    mode tcp
%
    bind :993 ssl crt mail.pem
    default_backend stores
backend stores
    server a 10.0.0.5:143
backend others
    server b 10.0.0.6:143
"""
_BACKEND = """frontend imaps
    mode tcp
    bind :993 ssl crt mail.pem
    default_backend stores
backend stores
%
    server a 10.0.0.5:143
frontend imap
    bind :143
    default_backend stores
"""
_EITHER = (
    "acl backlog bind-process compression description email-alert enabled errorfile errorfiles errorloc errorloc302"
    " errorloc303 filter http-after-response http-error http-request http-response id log log-tag maxconn redirect"
    " stats stick-table tcp-request"
)
_FRONTEND_ONLY = (
    "capture clitcpka-cnt clitcpka-idle clitcpka-intvl declare error-log-format log-format log-format-sd monitor"
    " monitor-uri rate-limit unique-id-format unique-id-header use_backend"
)
_BACKEND_ONLY = (
    "balance cookie dispatch external-check force-persist fullconn hash-type http-check http-reuse"
    " http-send-name-header ignore-persist load-server-state-from-file max-keep-alive-queue persist retries retry-on"
    " server-state-file-name server-template source srvtcpka-cnt srvtcpka-idle srvtcpka-intvl stick tcp-check"
    " tcp-response transparent use-fcgi-app use-server"
)
_TIMES = "check client client-fin http-keep-alive http-request queue server server-fin tarpit tunnel"
_PROXY_OPTIONS = each(
    "option NAME",
    "abortonclose allbackups clitcpka contstats dontlog-normal dontlognull independent-streams ldap-check"
    " log-health-checks log-separate-errors logasap mysql-check nolinger persist pgsql-check prefer-last-server"
    " redispatch smtpchk splice-auto srvtcpka ssl-hello-chk tcp-check tcp-smart-accept tcpka tcplog",
)
_BIND = """global
listen imaps
    bind :993 ssl crt mail.pem %
    server a 10.0.0.5:143
"""
_BIND_VERIFIED = _BIND.replace("%", "ca-file issuers.pem verify required %")
_BIND_FLAGS = (
    "accept-proxy allow-0rtt defer-accept force-sslv3 force-tlsv10 force-tlsv11 force-tlsv12 force-tlsv13"
    " generate-certificates no-ca-names no-sslv3 no-tls-tickets no-tlsv10 no-tlsv11 no-tlsv12 no-tlsv13"
    " prefer-client-ciphers quic-force-retry strict-sni tfo transparent v4v6 v6only"
)
_BIND_VALUES = (
    "accept-netscaler-cip alpn backlog curves ecdhe ca-ignore-err ca-sign-file ca-sign-pass ca-verify-file ciphers"
    " ciphersuites crl-file crt-ignore-err crt-list expose-fd gid group id interface level severity-output maxconn mode"
    " mss name namespace nice npn process proto quic-cc-algo shards ssl-max-ver tcp-ut thread tls-ticket-keys uid user"
)
_SERVER = """listen imaps
    bind :993 ssl crt mail.pem
    server a 10.0.0.5:143 %
"""
_SERVER_TLS = _SERVER.replace("%", "ssl %")
_SERVER_FLAGS = (
    "agent-check allow-0rtt check check-send-proxy check-ssl check-via-socks4 enabled force-sslv3 force-tlsv10"
    " force-tlsv11 force-tlsv12 force-tlsv13 no-agent-check no-backup no-check no-check-ssl no-send-proxy-v2-ssl"
    " no-ssl-reuse no-sslv3 no-tls-tickets no-tlsv10 no-tlsv11 no-tlsv12 no-tlsv13 no-verifyhost no-tfo non-stick"
    " ssl-reuse stick tfo tls-tickets"
)
_SERVER_VALUES = (
    "addr agent-send agent-inter agent-addr agent-port alpn ca-file check-alpn check-proto check-sni ciphers"
    " ciphersuites cookie crl-file crt error-limit fall id init-addr inter fastinter downinter log-proto maxconn"
    " maxqueue max-reuse minconn namespace npn observe on-error on-marked-down on-marked-up pool-low-conn"
    " pool-max-conn pool-purge-delay"
    " port proto proxy-v2-options redir rise resolve-opts resolve-prefer resolve-net resolvers slowstart sni socks4"
    " source ssl-max-ver ssl-min-ver tcp-ut track verify verifyhost weight ws"
)
_PERDITION = """protocol IMAP4
outgoing_server a
%
"""
_PERDITION_TLS = _PERDITION + "ssl_mode tls_all\n"
_PERDITION_LISTED = (
    "add_domain authenticate_in authenticate_timeout no_bind_banner connection_logging connect_relog"
    " client_server_specification domain_delimiter debug explicit_domain log_facility config_file group help inetd_mode"
    " capability imap_capability pop_capability managesieve_capability log_passwd lookup_domain lower_case"
    " login_disabled map_library map_library_opt no_daemon no_lookup ok_line pid_file query_key quiet server_ok_line"
    " server_resp_line strip_domain timeout username username_from_database"
    " ssl_ca_chain_file ssl_ca_path ssl_ca_accept_self_signed ssl_cert_accept_expired"
    " ssl_cert_accept_not_yet_valid ssl_cert_accept_self_signed ssl_cert_verify_depth ssl_listen_ciphers"
    " ssl_outgoing_ciphers ssl_no_client_cert_verify ssl_no_cn_verify ssl_passphrase_fd ssl_passphrase_file"
    " A a B C c D d e F f g h I i M m n O o q S t U u"
)

PLACES = (
    Place(
        "stunnel",
        "for all",
        _STUNNEL,
        ("cert = /b.pem", "key = /b.key", "CAfile = /ca.pem", "TIMEOUTconnect = 4", "sslVersionMin = TLSv1.3"),
        (
            *each(
                "NAME = x",
                "EGD RNDbytes RNDfile RNDoverwrite chroot compression debug engine engineCtrl engineDefault fips"
                f" foreground iconActive iconError iconIdle log output pid service syslog taskbar {_STUNNEL_SERVICE}",
            ),
            "client = no",
            "verify = 0",
        ),
        ("client = yes", "exec = /bin/sh"),
    ),
    Place(
        "stunnel",
        "section",
        _STUNNEL_SECTION,
        (
            *("accept = 994", "connect = 144", "cert = /b.pem", "key = /b.key", "protocol = imap", "protocol = proxy"),
            *("TIMEOUTconnect = 4", "sslVersion = TLSv1.3", "sslVersionMin = TLSv1.2"),
        ),
        (
            *each("NAME = x", _STUNNEL_SERVICE),
            *("CAfile = /ca.pem", "client = no", "requireCert = yes", "verifyChain = yes", "verify = 2", "verify = 0"),
            *("sslVersion = all", "sslVersion = x", "sslVersionMin = TLSv1", "requireCert = no", "verifyChain = no"),
        ),
        ("client = yes", "exec = /bin/sh", "protocol = cifs"),
    ),
    Place(
        "stunnel",
        "section with client certificates",
        _STUNNEL_SECTION.replace("%", "CAfile = /ca.pem\n%"),
        ("requireCert = yes", "verifyChain = yes", *each("verify = NAME", "1 2 3 4")),
        ("requireCert = no", "verifyChain = no", "verify = 0"),
    ),
    Place(
        "nginx",
        "main",
        "%\nmail { server { listen 143; protocol imap; } }\n",
        (),
        (*each("NAME x;", _MAIN), "events { }", "http { }"),
    ),
    Place(
        "nginx",
        "mail",
        _MAIL,
        (
            *("server_name gw.example.org;", "ssl on;", "ssl_certificate a.pem;", "ssl_certificate_key a.key;"),
            *("ssl_client_certificate ca.pem;", "ssl_protocols TLSv1.3;", "ssl_protocols TLSv1.2 TLSv1.3;"),
            *("starttls only;", "xclient off;", "proxy_protocol on;", "set_real_ip_from 10.0.0.0/8;"),
        ),
        (
            *each("NAME x;", _MAIL_BOTH),
            *("ssl off;", "starttls off;", "proxy_protocol off;", "ssl_protocols TLSv1;", "ssl_verify_client off;"),
            *("protocol imap;", "ssl_verify_client optional_no_ca;", "match x { }"),
        ),
    ),
    Place(
        "nginx",
        "mail server",
        _MAIL_SERVER,
        (
            *("listen 587;", "listen 465 ssl;", "protocol imap;", "server_name gw.example.org;", "ssl on;"),
            *("ssl_certificate a.pem;", "ssl_certificate_key a.key;", "ssl_protocols TLSv1.3;", "starttls only;"),
            *("xclient off;", "proxy_protocol on;"),
        ),
        (
            *each("NAME x;", _MAIL_BOTH),
            *("ssl off;", "starttls off;", "proxy_protocol off;", "ssl_client_certificate ca.pem;"),
            *("set_real_ip_from 10.0.0.0/8;", "ssl_verify_client on;", "ssl_protocols SSLv3;", "ssl_protocols;"),
            *each("listen 26 NAME;", "proxy_protocol backlog=5 rcvbuf=5 sndbuf=5 bind ipv6only=on so_keepalive=on"),
        ),
        ("protocol x;",),
    ),
    Place(
        "nginx",
        "stream server",
        _STREAM,
        (
            *("listen 994 ssl;", "proxy_pass 10.0.0.7:143;", "proxy_connect_timeout 3s;", "proxy_protocol on;"),
            *("proxy_ssl on;", "ssl_certificate a.pem;", "ssl_certificate_key a.key;", "ssl_protocols TLSv1.3;"),
        ),
        (
            *each("NAME x;", _STREAM_LISTED),
            *("proxy_ssl off;", "ssl_verify_client on;", "proxy_protocol off;", "ssl_protocols TLSv1.1 TLSv1.2;"),
        ),
    ),
    Place(
        "nginx",
        "stream server with TLS to the backend",
        _STREAM_TLS,
        ("proxy_ssl_trusted_certificate ca.pem;", "proxy_ssl_name mail.example.org;"),
        each("NAME x;", "proxy_ssl_verify_depth proxy_ssl_server_name proxy_ssl_crl"),
    ),
    Place(
        "nginx",
        "upstream",
        _UPSTREAM,
        ("server 10.0.0.4:143;", "server 10.0.0.6:143 backup;"),
        (
            *each("NAME x;", "hash least_conn least_time random resolver resolver_timeout state zone"),
            "server 10.0.0.4:143 down;",
            *each(
                "server 10.0.0.4:143 NAME;",
                "weight=5 max_conns=5 max_fails=5 fail_timeout=5 resolve service=x slow_start=5",
            ),
        ),
    ),
    Place(
        "nginx",
        "stream",
        "stream {\n%\nserver { listen 10.0.0.1:993 ssl; proxy_pass 10.0.0.5:143; }\n}\n",
        ("ssl_certificate a.pem;", "proxy_ssl on;", "proxy_protocol on;"),
        ("upstream stores { }", "map $a $b { }", "geo $a { }", "split_clients $a $b { }"),
    ),
    Place(
        "haproxy",
        "global",
        _GLOBAL,
        ("crt-base /etc/ssl", "ca-base /etc/ssl", "maxconn 2000"),
        (*each("NAME x", _GLOBAL_LISTED), "daemon", "quiet", "zero-warning", "noepoll", "nosplice", "maxconn 0"),
    ),
    Place(
        "haproxy",
        "defaults",
        _DEFAULTS,
        ("timeout connect 5000", "timeout connect 5s", "default-server ssl"),
        (
            *each("NAME x", f"{_EITHER} {_FRONTEND_ONLY} {_BACKEND_ONLY}"),
            *each("timeout NAME 5s", _TIMES),
            *_PROXY_OPTIONS,
            "default-server inter 2s",
        ),
        ("mode http", "disabled"),
    ),
    Place(
        "haproxy",
        "frontend",
        _FRONTEND,
        ("bind :994 ssl", "bind :143", "timeout connect 5s"),
        (
            *each("NAME x", f"{_EITHER} {_FRONTEND_ONLY}"),
            *each("timeout NAME 5s", "client client-fin tarpit"),
            *_PROXY_OPTIONS,
            "default_backend others",
        ),
        ("disabled", "mode http"),
    ),
    Place(
        "haproxy",
        "backend",
        _BACKEND,
        ("server b 10.0.0.4:143", "server b 10.0.0.4:143 backup", "timeout connect 5s", "default-server ssl"),
        (
            *each("NAME x", f"{_EITHER} {_BACKEND_ONLY}"),
            *each("timeout NAME 5s", "check queue server server-fin tunnel"),
            *_PROXY_OPTIONS,
            "mode http",
            *("default-server inter 2s", "server b 10.0.0.4:143 disabled", "server b 10.0.0.4:143 weight 5"),
        ),
        ("disabled",),
    ),
    Place(
        "haproxy",
        "sections",
        "listen imaps\n    bind :993 ssl crt mail.pem\n    server a 10.0.0.5:143\n%\n    x\n",
        ("listen imap\n    bind :143\n    server a 10.0.0.5:143",),
        each(
            "NAME x",
            "backend frontend peers resolvers userlist mailers program cache ring http-errors fcgi-app log-forward",
        ),
    ),
    Place(
        "haproxy",
        "bind",
        _BIND,
        ("crt other.pem", "ssl-min-ver TLSv1.3", "ssl-min-ver TLSv1.2"),
        (
            *each("NAME", _BIND_FLAGS),
            *each("NAME x", _BIND_VALUES),
            *("ca-file x", "verify none", "verify required", "ssl-min-ver TLSv1.0", "ssl-min-ver SSLv3", "ssl-min-ver"),
        ),
    ),
    Place(
        "haproxy", "bind with client certificates", _BIND_VERIFIED, ("verify optional", "ca-file x"), ("crl-file x",)
    ),
    Place(
        "haproxy",
        "server",
        _SERVER,
        ("ssl", "send-proxy", "send-proxy-v2", "send-proxy-v2-ssl", "send-proxy-v2-ssl-cn"),
        (*each("NAME", _SERVER_FLAGS), *each("NAME x", _SERVER_VALUES)),
        ("disabled",),
    ),
    Place(
        "haproxy",
        "server with TLS",
        _SERVER_TLS,
        ("verify none", "ca-file x", "verifyhost mail.example.org", "no-ssl"),
        ("sni str(x)", "crl-file x", "verify required"),
    ),
    Place(
        "perdition",
        "file",
        _PERDITION,
        (
            *("bind_address 10.0.0.1", "b 10.0.0.1", "connection_limit 5", "L 5", "listen_port 1143", "l 1143"),
            *("outgoing_port 1143", "p 1143", "outgoing_server b", "s b", "protocol POP3", "P IMAP4S"),
            *("ssl_mode tls_listen_force", "ssl_mode ssl_listen", "ssl_mode tls_outgoing", "ssl_cert_file a.pem"),
            *("ssl_key_file a.key",),
        ),
        (
            *each("NAME x", _PERDITION_LISTED),
            *("connection_limit 0", "ssl_mode none", "ssl_ca_file ca.pem", "ssl_no_cert_verify"),
        ),
    ),
    Place(
        "perdition", "file with TLS", _PERDITION_TLS, ("ssl_ca_file ca.pem", "ssl_no_cert_verify"), ("ssl_ca_path x",)
    ),
)
