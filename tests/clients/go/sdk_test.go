// The official Go server SDK: every call, and what arrives at the connections.
package clients

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/url"
	"reflect"
	"sort"
	"strings"
	"testing"

	pusher "github.com/pusher/pusher-http-go/v5"
	"golang.org/x/crypto/nacl/secretbox"
)

const masterKey = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="

// Publishing

func TestP88TriggerReachesTheSubscriberOfAChannel(t *testing.T) {
	b := startBroker(t)
	ann := b.connect()
	if data := ann.joins("orders", nil); data != "{}" {
		t.Fatalf("the channel began with %s", data)
	}

	must(t, b.sdk().Trigger("orders", "placed", map[string]string{"total": "12 €"}))
	must(t, b.sdk().Trigger("orders", "placed", "a string"))
	must(t, b.sdk().Trigger("orders", "placed", []byte("bytes")))

	ann.hears(
		frame{event: "placed", channel: "orders", data: `{"total":"12 €"}`},
		frame{event: "placed", channel: "orders", data: "a string"},
		frame{event: "placed", channel: "orders", data: "bytes"},
	)
}

func TestP39DataArrivesByteForByte(t *testing.T) {
	b := startBroker(t)
	ann := b.connect()
	ann.joins("orders", nil)
	texts := []string{"", " padded\n", `{"a" : 1 ,"b":[ ]}`, "Zoë 日本 🎉 \\u00eb \" \\ / \t\n\x01 <&>\u2028", "null", strings.Repeat("x", 10_240)}

	for _, text := range texts {
		must(t, b.sdk().Trigger("orders", "said", text))
	}

	for _, text := range texts {
		ann.hears(frame{event: "said", channel: "orders", data: text})
	}
}

func TestP38EventsKeepTheOrderOfTheirPublisher(t *testing.T) {
	b := startBroker(t)
	ann := b.connect()
	ann.joins("orders", nil)
	sdk := b.sdk()

	for number := 0; number < 50; number++ {
		must(t, sdk.Trigger("orders", "counted", fmt.Sprint(number)))
	}

	for number := 0; number < 50; number++ {
		ann.hears(frame{event: "counted", channel: "orders", data: fmt.Sprint(number)})
	}
}

func TestP76TriggerMultiReachesEachChannelOnce(t *testing.T) {
	b := startBroker(t)
	ann := b.connect()
	ann.joins("a", nil)
	bob := b.connect()
	bob.joins("c-97", nil)
	channels := []string{"a", "a"}
	for number := 0; number < 98; number++ {
		channels = append(channels, fmt.Sprintf("c-%d", number))
	}

	must(t, b.sdk().TriggerMulti(channels, "placed", "1"))
	must(t, b.sdk().TriggerMulti([]string{"a", "c-97"}, "marker", "2"))

	ann.hears(frame{event: "placed", channel: "a", data: "1"}, frame{event: "marker", channel: "a", data: "2"})
	bob.hears(frame{event: "placed", channel: "c-97", data: "1"}, frame{event: "marker", channel: "c-97", data: "2"})
}

func TestP80TriggerWithParamsAnswersInfo(t *testing.T) {
	b := startBroker(t)
	enters(b, "presence-room", "ann")
	enters(b, "presence-room", "bob")
	enters(b, "presence-room", "bob").joins("orders", nil)

	presence, err := b.sdk().TriggerWithParams("presence-room", "placed", "1",
		pusher.TriggerParams{Info: text("user_count,subscription_count")})
	must(t, err)
	orders, err := b.sdk().TriggerWithParams("orders", "placed", "1",
		pusher.TriggerParams{Info: text("user_count,subscription_count")})
	must(t, err)
	nothing, err := b.sdk().TriggerWithParams("orders", "placed", "1", pusher.TriggerParams{})
	must(t, err)

	is(t, asJSON(t, presence), `{"channels":{"presence-room":{"user_count":2,"subscription_count":3}}}`)
	is(t, asJSON(t, orders), `{"channels":{"orders":{"subscription_count":1}}}`)
	is(t, asJSON(t, nothing), `{"channels":null}`)
}

func TestP80TriggerMultiWithParamsAnswersOncePerUniqueChannel(t *testing.T) {
	b := startBroker(t)
	b.connect().joins("orders", nil)

	list, err := b.sdk().TriggerMultiWithParams([]string{"orders", "presence-empty", "orders", "empty"}, "placed", "1",
		pusher.TriggerParams{Info: text("user_count")})

	must(t, err)
	is(t, asJSON(t, list), `{"channels":{"empty":{},"orders":{},"presence-empty":{"user_count":0}}}`)
}

func TestP80AnUnknownAttributeIsRefused(t *testing.T) {
	b := startBroker(t)

	_, err := b.sdk().TriggerWithParams("orders", "placed", "1", pusher.TriggerParams{Info: text("weather")})

	refused(t, err, "Status Code: 400 - info should be a comma separated list of attributes\n")
}

func TestP79TheConnectionThatCausedAnEventIsSpared(t *testing.T) {
	b := startBroker(t)
	ann, bob := b.connect(), b.connect()
	for _, s := range []*socket{ann, bob} {
		s.joins("orders", nil)
	}
	sdk := b.sdk()

	for number, call := range []func(data string) error{
		func(data string) error { return sdk.TriggerExclusive("orders", "placed", data, ann.id) },
		func(data string) error {
			return sdk.TriggerMultiExclusive([]string{"orders", "news"}, "placed", data, ann.id)
		},
		func(data string) error {
			_, err := sdk.TriggerWithParams("orders", "placed", data, pusher.TriggerParams{SocketID: &ann.id})
			return err
		},
		func(data string) error {
			_, err := sdk.TriggerMultiWithParams([]string{"orders"}, "placed", data, pusher.TriggerParams{SocketID: &ann.id})
			return err
		},
		func(data string) error {
			_, err := sdk.TriggerBatch([]pusher.Event{{Channel: "orders", Name: "placed", Data: data, SocketID: &ann.id}})
			return err
		},
	} {
		must(t, call(fmt.Sprint(number)))
		bob.hears(frame{event: "placed", channel: "orders", data: fmt.Sprint(number)})
	}
	must(t, sdk.TriggerExclusive("orders", "marker", "to all", "1.1"))

	ann.hears(frame{event: "marker", channel: "orders", data: "to all"})
	bob.hears(frame{event: "marker", channel: "orders", data: "to all"})
}

func TestP81TriggerBatchPublishesInOrderAndAnswersByPosition(t *testing.T) {
	b := startBroker(t)
	ann := enters(b, "presence-room", "ann")
	ann.joins("orders", nil)

	list, err := b.sdk().TriggerBatch([]pusher.Event{
		{Channel: "orders", Name: "placed", Data: map[string]int{"n": 1}, Info: text("subscription_count")},
		{Channel: "orders", Name: "placed", Data: "2"},
		{Channel: "presence-room", Name: "placed", Data: "3", Info: text("user_count,subscription_count")},
	})

	must(t, err)
	is(t, asJSON(t, list), `{"batch":[{"subscription_count":1},{},{"user_count":1,"subscription_count":1}]}`)
	ann.hears(
		frame{event: "placed", channel: "orders", data: `{"n":1}`},
		frame{event: "placed", channel: "orders", data: "2"},
		frame{event: "placed", channel: "presence-room", data: "3"},
	)
	list, err = b.sdk().TriggerBatch([]pusher.Event{{Channel: "orders", Name: "placed", Data: "4"}})
	must(t, err)
	is(t, asJSON(t, list), `{"batch":null}`)
}

func TestP81ElevenEventsAreTooManyAndNoneIsPublished(t *testing.T) {
	b := startBroker(t)
	ann := b.connect()
	ann.joins("orders", nil)
	batch := make([]pusher.Event, 11)
	for number := range batch {
		batch[number] = pusher.Event{Channel: "orders", Name: "placed", Data: fmt.Sprint(number)}
	}

	_, err := b.sdk().TriggerBatch(batch)
	refused(t, err, "Status Code: 400 - Batch too large (11 > 10)\n")
	_, err = b.sdk().TriggerBatch(batch[1:])
	must(t, err)

	for number := 1; number < 11; number++ {
		ann.hears(frame{event: "placed", channel: "orders", data: fmt.Sprint(number)})
	}
}

func TestP45EncryptedEventsReachTheClientAsTheyWereSealed(t *testing.T) {
	b := startBroker(t)
	sdk := b.sdk()
	sdk.EncryptionMasterKeyBase64 = masterKey
	ann := b.connect()
	channel := "private-encrypted-vault"
	answer, err := sdk.AuthorizePrivateChannel(request(ann, channel))
	must(t, err)
	ann.joins(channel, answer)

	must(t, sdk.Trigger(channel, "secret", map[string]int{"pin": 1234}))
	_, err = sdk.TriggerBatch([]pusher.Event{{Channel: channel, Name: "secret", Data: "two"}})
	must(t, err)

	for _, plain := range []string{`{"pin":1234}`, "two"} {
		heard := ann.next()
		is(t, heard.event+" "+heard.channel, "secret "+channel)
		is(t, unseal(t, heard.data, answer), plain)
	}
}

// Asking

func TestP82ChannelsListsOccupiedChannelsOnly(t *testing.T) {
	b := startBroker(t)
	list, err := b.sdk().Channels(pusher.ChannelsParams{})
	must(t, err)
	if list.Channels == nil || len(list.Channels) != 0 {
		t.Fatalf("no channel is an empty object, not %#v", list)
	}
	ann := b.connect()
	ann.joins("orders", nil)
	ann.joins("orders-old", nil)
	must(t, b.sdk().Trigger("nobody-here", "placed", "1"))

	list, err = b.sdk().Channels(pusher.ChannelsParams{})
	must(t, err)
	same(t, list.Channels, map[string]pusher.ChannelListItem{"orders": {}, "orders-old": {}})
	list, err = b.sdk().Channels(pusher.ChannelsParams{FilterByPrefix: text("orders-")})
	must(t, err)
	same(t, list.Channels, map[string]pusher.ChannelListItem{"orders-old": {}})
}

func TestP70P82ChannelsCountsTheUsersOfPresenceChannels(t *testing.T) {
	b := startBroker(t)
	enters(b, "presence-a", "ann")
	enters(b, "presence-b", "ann")
	enters(b, "presence-b", "bob").joins("orders", nil)

	// The comma goes over the wire as it is.
	list, err := b.sdk().Channels(pusher.ChannelsParams{
		FilterByPrefix: text("presence-"), Info: text("user_count,subscription_count")})

	must(t, err)
	same(t, list.Channels, map[string]pusher.ChannelListItem{"presence-a": {UserCount: 1}, "presence-b": {UserCount: 2}})
	_, err = b.sdk().Channels(pusher.ChannelsParams{Info: text("user_count")})
	refused(t, err, "Status Code: 400 - user_count may only be requested for presence channels - "+
		"please supply filter_by_prefix begining with presence-\n")
}

func TestP83P85ChannelCountsUsersAndConnectionsApart(t *testing.T) {
	b := startBroker(t)
	room := "presence-a@b=c,d;e.f_g"
	for _, user := range []string{"ann", "bob", "bob"} {
		enters(b, room, user)
	}

	channel, err := b.sdk().Channel(room, pusher.ChannelParams{Info: text("user_count,subscription_count")})

	must(t, err)
	same(t, *channel, pusher.Channel{Name: room, Occupied: true, UserCount: 2, SubscriptionCount: 3})
}

func TestP83ChannelAnswersForUnoccupiedOnesAndRefusesWhatDoesNotApply(t *testing.T) {
	b := startBroker(t)

	channel, err := b.sdk().Channel("nobody-here", pusher.ChannelParams{Info: text("subscription_count")})
	must(t, err)
	same(t, *channel, pusher.Channel{Name: "nobody-here"})
	_, err = b.sdk().Channel("orders", pusher.ChannelParams{Info: text("user_count")})
	refused(t, err, "Status Code: 400 - Cannot retrieve the user count unless the channel is a presence channel\n")
	_, err = b.sdk().Channel("orders", pusher.ChannelParams{Info: text("cache")})
	refused(t, err, "Status Code: 400 - Cannot retrieve the cache unless the channel is a cache channel\n")
	_, err = b.sdk().Channel("cache-prices", pusher.ChannelParams{Info: text("cache")})
	must(t, err)
}

func TestP84GetChannelUsersListsEachUserOnce(t *testing.T) {
	b := startBroker(t)
	for _, user := range []string{"ann", "10", "ann"} {
		enters(b, "presence-room", user)
	}

	users, err := b.sdk().GetChannelUsers("presence-room")

	must(t, err)
	sort.Slice(users.List, func(i, j int) bool { return users.List[i].ID < users.List[j].ID })
	same(t, users.List, []pusher.User{{ID: "10"}, {ID: "ann"}})
	users, err = b.sdk().GetChannelUsers("presence-empty")
	must(t, err)
	if users.List == nil || len(users.List) != 0 {
		t.Fatalf("no user is an empty list, not %#v", users)
	}
	_, err = b.sdk().GetChannelUsers("orders")
	refused(t, err, "Status Code: 400 - Users can only be retrieved for presence channels\n")
}

// Letting connections in

func TestP40AuthorizePrivateChannelLetsAConnectionIn(t *testing.T) {
	b := startBroker(t)
	for _, authorize := range []func([]byte) ([]byte, error){
		b.sdk().AuthorizePrivateChannel,
		b.sdk().AuthenticatePrivateChannel,
	} {
		ann := b.connect()
		answer, err := authorize(request(ann, "private-orders"))
		must(t, err)
		is(t, ann.joins("private-orders", answer), "{}")

		must(t, b.sdk().Trigger("private-orders", "placed", "1"))
		ann.hears(frame{event: "placed", channel: "private-orders", data: "1"})
	}
}

func TestP31P40AuthorizePresenceChannelMakesAMember(t *testing.T) {
	b := startBroker(t)
	for _, authorize := range []func([]byte, pusher.MemberData) ([]byte, error){
		b.sdk().AuthorizePresenceChannel,
		b.sdk().AuthenticatePresenceChannel,
	} {
		ann := b.connect()
		member := pusher.MemberData{UserID: "ann", UserInfo: map[string]string{"name": "Zoë <日本>"}}
		answer, err := authorize(request(ann, "presence-room"), member)
		must(t, err)

		snapshot := ann.joins("presence-room", answer)

		sameJSON(t, snapshot, `{"presence":{"count":1,"ids":["ann"],"hash":{"ann":{"name":"Zoë <日本>"}}}}`)
	}
}

func TestP32TwoUsersAndTheSecondConnectionOfOne(t *testing.T) {
	b := startBroker(t)
	ann := enters(b, "presence-room", "ann")
	phone := enters(b, "presence-room", "bob")
	added := ann.next()
	is(t, added.event, "pusher_internal:member_added")
	var member struct {
		UserID string `json:"user_id"`
	}
	ann.decode(added.data, &member)
	is(t, member.UserID, "bob")
	laptop := enters(b, "presence-room", "bob")

	must(t, b.sdk().Trigger("presence-room", "marker", "1"))
	marker := frame{event: "marker", channel: "presence-room", data: "1"}
	for _, s := range []*socket{ann, phone, laptop} {
		s.hears(marker)
	}

	phone.asks("pusher:unsubscribe", nil, map[string]string{"channel": "presence-room"})
	phone.joins("orders", nil) // so the unsubscribe has been read
	must(t, b.sdk().Trigger("presence-room", "marker", "1"))
	ann.hears(marker)
	laptop.conn.Close()
	ann.hears(frame{event: "pusher_internal:member_removed", channel: "presence-room", data: `{"user_id":"bob"}`})
}

func TestP43ATokenMadeForAnotherConnectionIsRefused(t *testing.T) {
	b := startBroker(t)
	ann, bob := b.connect(), b.connect()
	answer, err := b.sdk().AuthorizePrivateChannel(request(ann, "private-orders"))
	must(t, err)

	bob.asks("pusher:subscribe", answer, map[string]string{"channel": "private-orders"})

	failed := bob.next()
	is(t, failed.event, "pusher:error")
	var problem struct {
		Code    *int
		Message string
	}
	bob.decode(failed.data, &problem)
	if problem.Code != nil || !strings.HasPrefix(problem.Message,
		"Invalid signature: Expected HMAC SHA256 hex digest of "+bob.id+":private-orders, but got ") {
		t.Fatalf("refused with %s", failed.data)
	}
	refusal := bob.next()
	is(t, refusal.event+" "+refusal.channel, "pusher:subscription_error private-orders")
	list, err := b.sdk().Channels(pusher.ChannelsParams{})
	must(t, err)
	same(t, list.Channels, map[string]pusher.ChannelListItem{})
}

func TestP50P54AuthenticateUserSignsInAndSendToUserReachesEveryConnection(t *testing.T) {
	b := startBroker(t)
	phone, laptop, bob := b.connect(), b.connect(), b.connect()
	for s, user := range map[*socket]string{phone: "ann", laptop: "ann", bob: "bob"} {
		answer, err := b.sdk().AuthenticateUser([]byte("socket_id="+s.id),
			map[string]interface{}{"id": user, "user_info": map[string]string{"name": "Zoë <日本>"}})
		must(t, err)
		s.asks("pusher:signin", answer, nil)

		success := s.next()

		is(t, success.event, "pusher:signin_success")
		var sent, echoed struct {
			UserData string `json:"user_data"`
		}
		s.decode(string(answer), &sent)
		s.decode(success.data, &echoed)
		is(t, echoed.UserData, sent.UserData)
	}
	phone.joins("#server-to-user-ann", nil)
	for _, s := range []*socket{phone, laptop, bob} {
		s.joins("orders", nil)
	}

	must(t, b.sdk().SendToUser("ann", "hello", map[string]int{"n": 1}))
	must(t, b.sdk().Trigger("orders", "marker", "2"))

	hello := frame{event: "hello", channel: "#server-to-user-ann", data: `{"n":1}`}
	marker := frame{event: "marker", channel: "orders", data: "2"}
	phone.hears(hello, marker)
	laptop.hears(hello, marker)
	bob.hears(marker)
}

// Refusals, as the SDK words them

func TestP71NoCallPassesWithAWrongSecretOrKey(t *testing.T) {
	b := startBroker(t)
	for name, call := range map[string]func(*pusher.Client) error{
		"Trigger": func(sdk *pusher.Client) error { return sdk.Trigger("orders", "placed", "1") },
		"TriggerBatch": func(sdk *pusher.Client) error {
			_, err := sdk.TriggerBatch([]pusher.Event{{Channel: "orders", Name: "placed", Data: "1"}})
			return err
		},
		"Channels": func(sdk *pusher.Client) error {
			_, err := sdk.Channels(pusher.ChannelsParams{})
			return err
		},
		"Channel": func(sdk *pusher.Client) error {
			_, err := sdk.Channel("orders", pusher.ChannelParams{})
			return err
		},
		"GetChannelUsers": func(sdk *pusher.Client) error {
			_, err := sdk.GetChannelUsers("presence-room")
			return err
		},
		"SendToUser": func(sdk *pusher.Client) error { return sdk.SendToUser("ann", "hello", "1") },
	} {
		t.Run(name, func(t *testing.T) {
			forged, stranger := b.sdk(), b.sdk()
			forged.Secret = "wrong"
			stranger.Key = "unknown"

			begins(t, call(forged), "Status Code: 401 - Invalid signature: you should have sent HmacSHA256Hex(")
			begins(t, call(stranger), "Status Code: 401 - Unknown auth_key")
		})
	}
}

func TestP75UnknownAndDisabledApps(t *testing.T) {
	b := startBroker(t, app(appID, appKey, secret), app("2", "key-2", "secret-2", "enabled = false"))
	disabled := &pusher.Client{AppID: "2", Key: "key-2", Secret: "secret-2", Host: b.address}
	unknown := b.sdk()
	unknown.AppID = "404"
	foreign := b.sdk()
	foreign.AppID = "2"

	begins(t, disabled.Trigger("orders", "placed", "1"), "Status Code: 403 - ")
	begins(t, unknown.Trigger("orders", "placed", "1"), "Status Code: 404 - Unknown app_id")
	begins(t, foreign.Trigger("orders", "placed", "1"), "Status Code: 401 - ")
}

func TestP77DataHasALimitInBytes(t *testing.T) {
	b := startBroker(t)
	sdk := b.sdk()
	sdk.OverrideMaxMessagePayloadKB = 20 // so that the broker decides

	must(t, sdk.Trigger("orders", "placed", strings.Repeat("é", 5_120)))
	want := "Status Code: 413 - The data content of this event exceeds the allowed maximum (10240 bytes)\n"
	refused(t, sdk.Trigger("orders", "placed", strings.Repeat("é", 5_120)+"x"), want)
	_, err := sdk.TriggerBatch([]pusher.Event{{Channel: "orders", Name: "placed", Data: strings.Repeat("x", 10_241)}})
	begins(t, err, "Status Code: 413 - ")
}

func TestP21P78BadNamesAreRefused(t *testing.T) {
	b := startBroker(t)

	refused(t, b.sdk().Trigger("orders", "pusher:error", "1"), "Status Code: 400 - Invalid event name 'pusher:error'\n")
	refused(t, b.sdk().Trigger("orders", "", "1"), "Status Code: 400 - Missing required parameter: name\n")
	refused(t, b.sdk().Trigger("orders", strings.Repeat("x", 201), "1"), "Status Code: 400 - Event name too long (201 > 200)\n")
	begins(t, b.sdk().Trigger(strings.Repeat("x", 165), "placed", "1"), "Status Code: 400 - Invalid channel name 'xxx")
	must(t, b.sdk().Trigger(strings.Repeat("x", 164), strings.Repeat("x", 200), "1"))
	must(t, b.sdk().Trigger("orders", `App\Events\Order.Placed`, "1"))
}

func TestP88AClientMadeFromAURLWorksAndKeepsWorkingAfterARestart(t *testing.T) {
	b := startBroker(t)
	sdk, err := pusher.ClientFromURL(fmt.Sprintf("http://%s:%s@%s/apps/%s", appKey, secret, b.address, appID))
	must(t, err)
	must(t, sdk.Trigger("orders", "placed", "1"))

	b.restart()
	ann := b.connect()
	ann.joins("orders", nil)
	_, err = sdk.Channels(pusher.ChannelsParams{}) // a GET may be sent again over a fresh connection
	must(t, err)
	must(t, sdk.Trigger("orders", "placed", "2"))

	ann.hears(frame{event: "placed", channel: "orders", data: "2"})
}

func TestP11ConnectionsAreToldOfTheShutdown(t *testing.T) {
	b := startBroker(t)
	ann := b.connect()

	b.terminate()

	failed := ann.next()
	is(t, failed.event, "pusher:error")
	var problem struct{ Code int }
	ann.decode(failed.data, &problem)
	same(t, problem.Code, 4200)
	ann.isClosed(4200)
	b.ends()
}

// enters joins a presence channel as a user, on a connection of its own.
func enters(b *broker, channel, user string) *socket {
	b.test.Helper()
	s := b.connect()
	answer, err := b.sdk().AuthorizePresenceChannel(request(s, channel), pusher.MemberData{UserID: user})
	must(b.test, err)
	s.joins(channel, answer)
	return s
}

// request is the form a client posts to the application's authorising endpoint.
func request(s *socket, channel string) []byte {
	return []byte(url.Values{"socket_id": {s.id}, "channel_name": {channel}}.Encode())
}

// unseal opens the data of an encrypted event with the secret of the authorising answer.
func unseal(t *testing.T, data string, answer []byte) string {
	t.Helper()
	var authorised struct {
		SharedSecret []byte `json:"shared_secret"` // base64 in JSON
	}
	must(t, json.Unmarshal(answer, &authorised))
	var sealed pusher.EncryptedMessage
	must(t, json.Unmarshal([]byte(data), &sealed))
	box, err := base64.StdEncoding.DecodeString(sealed.Ciphertext)
	must(t, err)
	nonceBytes, err := base64.StdEncoding.DecodeString(sealed.Nonce)
	must(t, err)
	var nonce [24]byte
	copy(nonce[:], nonceBytes)
	var key [32]byte
	copy(key[:], authorised.SharedSecret)
	plain, opened := secretbox.Open(nil, box, &nonce, &key)
	if !opened {
		t.Fatalf("%s does not open", data)
	}
	return string(plain)
}

func text(value string) *string { return &value }

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func refused(t *testing.T, err error, want string) {
	t.Helper()
	if err == nil || err.Error() != want {
		t.Fatalf("refused with %q instead of %q", fmt.Sprint(err), want)
	}
}

func begins(t *testing.T, err error, want string) {
	t.Helper()
	if err == nil || !strings.HasPrefix(err.Error(), want) {
		t.Fatalf("refused with %q instead of %q...", fmt.Sprint(err), want)
	}
}

func is(t *testing.T, got, want string) {
	t.Helper()
	if got != want {
		t.Fatalf("%q instead of %q", got, want)
	}
}

func same(t *testing.T, got, want interface{}) {
	t.Helper()
	if !reflect.DeepEqual(got, want) {
		t.Fatalf("%#v instead of %#v", got, want)
	}
}

func sameJSON(t *testing.T, got, want string) {
	t.Helper()
	var left, right interface{}
	must(t, json.Unmarshal([]byte(got), &left))
	must(t, json.Unmarshal([]byte(want), &right))
	same(t, left, right)
}

func asJSON(t *testing.T, value interface{}) string {
	t.Helper()
	encoded, err := json.Marshal(value)
	must(t, err)
	return string(encoded)
}
