package serve

import (
	"crypto/sha256"
	"crypto/subtle"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
)

// guard stands before all handlers: it keeps foreign pages out, and lets those of the allowed origins in.
func (s *Server) guard(next http.Handler) http.Handler {
	foreign := http.NewCrossOriginProtection()
	anyOrigin := slices.Contains(s.options.Origins, "*")
	for _, origin := range s.options.Origins {
		if origin != "*" {
			foreign.AddTrustedOrigin(origin) // Validate has tried it
		}
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Cache-Control", "no-store")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Content-Security-Policy", "frame-ancestors 'none'")
		if !s.knows(r.Host) {
			newFailure(http.StatusMisdirectedRequest, typeInvalid, "", "", "this server is at localhost, or at the "+
				"number of its address; start it with an API key, or with --origin for that name").write(w)
			return
		}
		origin := r.Header.Get("Origin")
		allowed := origin != "" && (anyOrigin || slices.Contains(s.options.Origins, origin))
		if len(s.options.Origins) > 0 {
			h.Add("Vary", "Origin")
		}
		if allowed {
			h.Set("Access-Control-Allow-Origin", origin)
			h.Set("Access-Control-Expose-Headers", "Retry-After, X-Request-Id")
			if r.Method == http.MethodOptions && r.Header.Get("Access-Control-Request-Method") != "" {
				h.Set("Access-Control-Allow-Methods", "GET, POST, DELETE")
				h.Set("Access-Control-Allow-Headers", r.Header.Get("Access-Control-Request-Headers"))
				h.Set("Access-Control-Max-Age", "600")
				w.WriteHeader(http.StatusNoContent)
				return
			}
		} else if foreign.Check(r) != nil {
			newFailure(http.StatusForbidden, typeInvalid, "", "", "pages of %.200q may not use this server; --origin "+
				"allows it", origin).write(w)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// knows tells whether a request is for a name that this server has. On loopback and without a key, a page elsewhere
// whose name was made to point here (DNS rebinding) must not get in.
func (s *Server) knows(host string) bool {
	if !s.local || s.options.Key != "" || slices.Contains(s.options.Origins, "*") {
		return true
	}
	name := host
	if h, _, err := net.SplitHostPort(host); err == nil {
		name = h
	}
	if _, err := netip.ParseAddr(strings.Trim(name, "[]")); err == nil || strings.EqualFold(name, "localhost") {
		return true
	}
	return slices.ContainsFunc(s.options.Origins, func(origin string) bool {
		_, of, _ := strings.Cut(origin, "://")
		return strings.EqualFold(of, host)
	})
}

// authorize fails where a request doesn't show the key.
func (s *Server) authorize(r *http.Request) error {
	if s.options.Key == "" {
		return nil
	}
	scheme, shown, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	want, got := sha256.Sum256([]byte(s.options.Key)), sha256.Sum256([]byte(strings.TrimSpace(shown)))
	if subtle.ConstantTimeCompare(want[:], got[:]) == 1 && strings.EqualFold(scheme, "Bearer") {
		return nil
	}
	return newFailure(http.StatusUnauthorized, typeInvalid, "", codeKey, "the API key is missing or wrong; it goes "+
		"into the header Authorization, behind Bearer")
}
