package port

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
)

// advertise chooses the address that others are told. Guessing an interface is
// what users of other systems suffer from most, so there is no guessing: the
// address is given, or it is the listener's, or the kernel says from which
// address it would reach a seed. And a loopback address is never told to nodes
// on other hosts.
func advertise(ctx context.Context, cfg *Config, bound *net.TCPAddr) (string, error) {
	port := strconv.Itoa(bound.Port)
	host := bound.IP.String()
	if bound.Zone != "" {
		host += "%" + bound.Zone
	}
	switch {
	case cfg.Advertise != "":
		h, p, err := net.SplitHostPort(cfg.Advertise)
		if err != nil {
			h, p = cfg.Advertise, port
		}
		if p == "0" {
			p = port
		}
		host, port = h, p
		if ip := net.ParseIP(host); host == "" || (ip != nil && ip.IsUnspecified()) {
			return "", fmt.Errorf("advertise: %q is no address that others can reach; name one of this host's", cfg.Advertise)
		}
	case bound.IP.IsUnspecified():
		local, err := localFor(routesTo(ctx, cfg.Seeds), cfg)
		if err != nil {
			return "", err
		}
		host = local.String()
	}
	if isLoopback(host) {
		if away := firstAway(routesTo(ctx, cfg.Seeds)); away != nil {
			return "", fmt.Errorf("advertise: %s is this host alone, but the seed %s is on another; set advertise to an address of this host that it can reach",
				host, away.seed)
		}
	}
	return net.JoinHostPort(host, port), nil
}

// route is what the kernel would do to reach a seed.
type route struct {
	seed   string
	local  net.IP // source address; nil when there is no route
	remote net.IP
	err    error
}

// routesTo asks the kernel by connecting UDP sockets, which sends nothing.
func routesTo(ctx context.Context, seeds []string) []route {
	routes := make([]route, 0, len(seeds))
	for _, seed := range seeds {
		r := route{seed: seed}
		var d net.Dialer
		conn, err := d.DialContext(ctx, "udp", seed)
		if err != nil {
			r.err = err
			routes = append(routes, r)
			continue
		}
		if a, ok := conn.LocalAddr().(*net.UDPAddr); ok {
			r.local = a.IP
		}
		if a, ok := conn.RemoteAddr().(*net.UDPAddr); ok {
			r.remote = a.IP
		}
		r.err = conn.Close()
		routes = append(routes, r)
	}
	return routes
}

// localFor picks the source address of the first route that leaves this host.
// Loopback counts only when every seed is spelled so: then the whole cluster is
// on this host. (Debian's /etc/hosts resolves a host's own name to 127.0.1.1,
// which says nothing about how others reach it.)
func localFor(routes []route, cfg *Config) (net.IP, error) {
	if len(routes) == 0 {
		return nil, fmt.Errorf("advertise: listen %s is every address of this host, and there are no seeds to choose one by; set advertise to the one that others can reach", cfg.Listen)
	}
	var errs []error
	var loopback net.IP
	for _, r := range routes {
		switch {
		case r.local == nil:
			errs = append(errs, fmt.Errorf("seed %s: %w", r.seed, r.err))
		case !r.local.IsLoopback():
			return r.local, nil
		case !isLoopback(hostOf(r.seed)):
			errs = append(errs, fmt.Errorf("seed %s is %s on this host", r.seed, r.remote))
		default:
			loopback = r.local
		}
	}
	if loopback != nil && len(errs) == 0 {
		return loopback, nil
	}
	return nil, fmt.Errorf("advertise: listen %s is every address of this host, and no seed has a route to choose one by; set advertise to the one that others can reach: %w",
		cfg.Listen, errors.Join(errs...))
}

// firstAway returns the first seed that is certainly on another host or at
// least behind a real interface; nil when there is none.
func firstAway(routes []route) *route {
	for i := range routes {
		if r := &routes[i]; r.remote != nil && !r.remote.IsLoopback() {
			return r
		}
	}
	return nil
}

func hostOf(hostPort string) string {
	host, _, err := net.SplitHostPort(hostPort)
	if err != nil {
		return hostPort
	}
	return host
}

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || (ip != nil && ip.IsLoopback())
}
