# SPDX-License-Identifier: MIT
#
# Writes, from a list of names as types.awk and macros.awk give it, a C program that prints what
# each of them is worth to the compiler; -v header=linux/x.h. The other half is in report.h.

BEGIN {
	print "#include <stddef.h>"
	print "#include <" header ">"
	print "#include \"report.h\""
	print "int main(void)\n{"
}

{
	label = "\"" $0 "\""
}

$1 == "struct" || $1 == "union" {
	printf "\tREPORT_TYPE(%s, %s %s);\n", label, $1, $2
}

$1 == "typedef" {
	printf "\tREPORT_TYPE(%s, %s);\n", label, $2
}

$1 == "enum" {
	printf "\tREPORT_TYPE(%s, enum %s);\n", label, $2
}

# A flexible array has no size, its elements do.
$1 == "member" {
	printf "\tREPORT_MEMBER(%s, %s %s, %s, %s);\n", label, $2, $3, $4, ($0 ~ /\[\]/ ? $4 "[0]" : $4)
}

$1 == "enumerator" || $1 == "macro" {
	printf "\tREPORT_VALUE(%s, %s);\n", label, $2
}

# Macros of one parameter act on bit sets: try all sets of five bits, alone and in a crowd. The
# argument is a plain variable, for a macro that forgets its parentheses.
$1 == "function" {
	if ($3 != 1) {
		print "program.awk: cannot try " $2 ", which has " $3 " parameters" >"/dev/stderr"
		failed = 1
		exit
	}
	printf "\tfor (unsigned int i = 0; i < 64; i++) {\n"
	printf "\t\tunsigned int bits = i < 32 ? i : i | 0xa5a5a500;\n"
	printf "\t\tREPORT_VALUE(%s, %s(bits));\n\t}\n", label, $2
}

END {
	print "\treturn 0;\n}"
	exit failed
}
