# SPDX-License-Identifier: MIT
#
# Names of the macros that a header itself defines, from `cc -E -dD`; -v header=linux/x.h. Lines:
#	macro NAME			stands for a value
#	empty NAME			stands for nothing
#	function NAME PARAMETERS	number of parameters

# A marker such as: # 12 "include/linux/x.h" 2
/^# [0-9]+ "/ {
	file = $3
	gsub(/"/, "", file)
	inside = file == header || substr(file, length(file) - length(header)) == "/" header
	next
}

inside && $1 == "#undef" {
	delete kind[$2]
}

inside && $1 == "#define" {
	text = $0
	sub(/^#define /, "", text)
	match(text, /^[A-Za-z0-9_]+/)
	macro = substr(text, 1, RLENGTH)
	text = substr(text, RLENGTH + 1)
	if (substr(text, 1, 1) == "(") {
		sub(/\).*/, "", text)
		kind[macro] = "function " macro " " (text == "(" ? 0 : split(text, parameter, ","))
	} else {
		kind[macro] = (text ~ /^[ \t]*$/ ? "empty " : "macro ") macro
	}
}

END {
	for (macro in kind)
		print kind[macro]
}
