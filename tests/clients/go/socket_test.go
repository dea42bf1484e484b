package clients

import (
	"encoding/json"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/gorilla/websocket"
)

// A frame of the broker. Data is the string inside, except in errors, where it is the object as it came.
type frame struct {
	event, channel, data, userID string
}

// A WebSocket without a client library: every frame, in order, as it came.
type socket struct {
	test *testing.T
	conn *websocket.Conn
	id   string // the socket id
}

func (b *broker) connect() *socket {
	b.test.Helper()
	url := fmt.Sprintf("ws://%s/app/%s?protocol=7&client=test&version=1", b.address, appKey)
	dialer := websocket.Dialer{HandshakeTimeout: deadline}
	conn, _, err := dialer.Dial(url, nil)
	if err != nil {
		b.test.Fatal(err)
	}
	b.test.Cleanup(func() { conn.Close() })
	s := &socket{test: b.test, conn: conn}
	established := s.next()
	if established.event != "pusher:connection_established" {
		b.test.Fatalf("the first frame was %+v", established)
	}
	var data struct {
		SocketID string `json:"socket_id"`
	}
	s.decode(established.data, &data)
	s.id = data.SocketID
	return s
}

// next is the next frame; it fails when none comes in time. What every client relies on is checked here (P14):
// data is a string except in errors, and names are never null.
func (s *socket) next() frame {
	s.test.Helper()
	text := s.read()
	var message struct {
		Event   string          `json:"event"`
		Channel json.RawMessage `json:"channel"`
		UserID  json.RawMessage `json:"user_id"`
		Data    json.RawMessage `json:"data"`
	}
	s.decode(text, &message)
	f := frame{event: message.Event, data: string(message.Data)}
	if message.Event != "pusher:error" {
		s.decode(string(message.Data), &f.data)
	}
	for _, name := range []struct {
		raw  json.RawMessage
		into *string
	}{{message.Channel, &f.channel}, {message.UserID, &f.userID}} {
		if name.raw != nil {
			if string(name.raw) == "null" {
				s.test.Fatalf("a null name in %s", text)
			}
			s.decode(string(name.raw), name.into)
		}
	}
	return f
}

func (s *socket) read() string {
	s.test.Helper()
	if err := s.conn.SetReadDeadline(time.Now().Add(deadline)); err != nil {
		s.test.Fatal(err)
	}
	_, text, err := s.conn.ReadMessage()
	if err != nil {
		s.test.Fatalf("nothing more came: %v", err)
	}
	return string(text)
}

// hears insists that the next frames are these.
func (s *socket) hears(wanted ...frame) {
	s.test.Helper()
	for _, want := range wanted {
		if got := s.next(); got != want {
			s.test.Fatalf("heard %+v instead of %+v", got, want)
		}
	}
}

// isClosed insists that the connection now ends with this code.
func (s *socket) isClosed(code int) {
	s.test.Helper()
	if err := s.conn.SetReadDeadline(time.Now().Add(deadline)); err != nil {
		s.test.Fatal(err)
	}
	_, text, err := s.conn.ReadMessage()
	var closed *websocket.CloseError
	if !errors.As(err, &closed) || closed.Code != code {
		s.test.Fatalf("no close %d but %q, %v", code, text, err)
	}
}

func (s *socket) say(message interface{}) {
	s.test.Helper()
	if err := s.conn.WriteJSON(message); err != nil {
		s.test.Fatal(err)
	}
}

// asks sends an event of the protocol with the answer of an authorising call as its data.
func (s *socket) asks(event string, answer []byte, more map[string]string) {
	s.test.Helper()
	data := map[string]string{}
	if answer != nil {
		s.decode(string(answer), &data)
	}
	delete(data, "shared_secret") // clients keep it to themselves
	for name, value := range more {
		data[name] = value
	}
	s.say(map[string]interface{}{"event": event, "data": data})
}

// joins subscribes, insists on success and returns what the broker said about the channel.
func (s *socket) joins(channel string, answer []byte) string {
	s.test.Helper()
	s.asks("pusher:subscribe", answer, map[string]string{"channel": channel})
	succeeded := s.next()
	if succeeded.event != "pusher_internal:subscription_succeeded" || succeeded.channel != channel {
		s.test.Fatalf("no success for %s but %+v", channel, succeeded)
	}
	return succeeded.data
}

func (s *socket) decode(text string, into interface{}) {
	s.test.Helper()
	if err := json.Unmarshal([]byte(text), into); err != nil {
		s.test.Fatalf("%v in %s", err, text)
	}
}
