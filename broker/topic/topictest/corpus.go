package topictest

import "strings"

// Filters are more than 400 topic filters, good and bad: what every place that judges filters is held against.
func Filters() []string {
	levels := []string{"a", "", "+", "#", "a+", "%c", "$x"}
	var all []string
	for last := []string{""}; strings.Count(last[0], "/") < 3; {
		var next []string
		for _, above := range last {
			for _, level := range levels {
				next = append(next, above+level+"/")
			}
		}
		for _, filter := range next {
			all = append(all, strings.TrimSuffix(filter, "/"))
		}
		last = next
	}
	for _, first := range []string{"$share", "$SHARE", "$Share", "$share/g", "$share/", "$share/+", "$share/g#", "$SHARE/g", "$SYS", "$sys", "$plantops", "%u"} {
		for _, rest := range []string{"", "/", "/a", "/+", "/#", "/a/#", "/a/#/b", "/a+"} {
			all = append(all, first+rest)
		}
	}
	for _, bad := range []string{"\x00", "\x01", "\x7f", "\u0085", "\xff", "\xc3", "\ufffe", "ä", "😀", " ", "%", "\""} {
		all = append(all, "a"+bad+"b", "a/x"+bad+"x/#", "$share/g/x"+bad+"x")
	}
	for _, deep := range []int{31, 32, 33, 200} {
		all = append(all, strings.Repeat("a/", deep-1)+"a", strings.Repeat("+/", deep-1)+"#", "$share/g/"+strings.Repeat("/", deep-1))
	}
	for _, long := range []int{1023, 1024, 1025, 65535, 65536, 70000} {
		all = append(all, strings.Repeat("x", long), strings.Repeat("x", long-2)+"/#")
	}
	return all
}
