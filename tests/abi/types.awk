# SPDX-License-Identifier: MIT
#
# Names of all types in an object file, from `readelf --debug-dump=info` of it, so that the
# compiler does the parsing of the header. One line each:
#	struct NAME | union NAME | enum NAME		with a name only
#	member struct NAME FIELD TYPE			TYPE as declared; fields of anonymous parts
#							appear as fields of the struct, as in C
#	enumerator NAME ENUM				ENUM "-" for an anonymous one
#	typedef NAME TYPE

# " <2><1217>: Abbrev Number: 15 (DW_TAG_member)": depth and position, both in < >.
/^ *<[0-9a-f]+><[0-9a-f]+>: Abbrev Number: [1-9]/ {
	split($0, part, /[<>]/)
	depth = part[2] + 0
	die = part[4]
	tag[die] = $0
	sub(/.*\(DW_TAG_/, "", tag[die])
	sub(/\).*/, "", tag[die])
	open[depth] = die
	if (depth > 0) {
		parent = open[depth - 1]
		child[parent, children[parent]++] = die
	}
	order[count++] = die
	next
}

/^ *<[0-9a-f]+> +DW_AT_/ {
	attribute = $2
	value = $0
	sub(/^[^:]*: */, "", value)
	sub(/^\((indirect|indexed)[^)]*\): */, "", value)
	sub(/[ \t]+$/, "", value)
	gsub(/^<0x|>$/, "", value)
	at[die, attribute] = value
}

function name(die) {
	return at[die, "DW_AT_name"]
}

# The number of elements as C writes it, "" for a flexible array.
function bounds(die,	i, range, text) {
	text = ""
	for (i = 0; i < children[die]; i++) {
		range = child[die, i]
		if ((range, "DW_AT_count") in at)
			text = text "[" at[range, "DW_AT_count"] "]"
		else if ((range, "DW_AT_upper_bound") in at)
			text = text "[" (at[range, "DW_AT_upper_bound"] + 1) "]"
		else
			text = text "[]"
	}
	return text
}

function type_text(die,	t) {
	if (die == "")
		return "void"
	t = tag[die]
	if (t == "typedef" || t == "base_type")
		return name(die)
	if (t == "structure_type")
		return "struct " name(die)
	if (t == "union_type")
		return "union " name(die)
	if (t == "enumeration_type")
		return "enum " name(die)
	if (t == "pointer_type")
		return type_text(at[die, "DW_AT_type"]) " *"
	if (t == "const_type")
		return "const " type_text(at[die, "DW_AT_type"])
	if (t == "subroutine_type")
		return "function"
	if (t == "array_type")
		return type_text(at[die, "DW_AT_type"]) " " bounds(die)
	print "types.awk: no idea what a " t " is" >"/dev/stderr"
	failed = 1
	return t
}

# The alignment distinguishes __aligned_u64 from __u64 where sizes and offsets do not.
function aligned(die) {
	return (die, "DW_AT_alignment") in at ? " aligned " at[die, "DW_AT_alignment"] : ""
}

function members(owner, die,	i, m) {
	for (i = 0; i < children[die]; i++) {
		m = child[die, i]
		if (tag[m] != "member")
			continue
		if (name(m) == "")
			members(owner, at[m, "DW_AT_type"])
		else
			print "member", owner, name(m), type_text(at[m, "DW_AT_type"]) aligned(m)
	}
}

function enumerators(die,	i) {
	for (i = 0; i < children[die]; i++)
		print "enumerator", name(child[die, i]), name(die) == "" ? "-" : name(die)
}

END {
	for (i = 0; i < count; i++) {
		die = order[i]
		if (tag[die] == "enumeration_type") {
			if (name(die) != "")
				print "enum", name(die)
			enumerators(die)
		} else if (tag[die] == "structure_type" || tag[die] == "union_type") {
			kind = tag[die] == "union_type" ? "union" : "struct"
			if (name(die) != "") {
				print kind, name(die)
				members(kind " " name(die), die)
			}
		} else if (tag[die] == "typedef") {
			print "typedef", name(die), type_text(at[die, "DW_AT_type"]) aligned(die)
		}
	}
	exit failed
}
