# Texts for tests, made up of a dozen words and always the same. Sourced.
# shellcheck shell=bash

# texts SEED ROWS LEAST RANGE: rows of a text of LEAST words or up to RANGE - 1 more, a tab, a word that goes
# round all twelve, a tab, one that goes round seven.
texts() {
    awk -v state="$1" -v rows="$2" -v least="$3" -v range="$4" 'BEGIN {
        split("malt hop yeast water barley wheat foam glass cask keg cellar brewer", word, " ")
        for (row = 0; row < rows; row++) {
            text = ""
            n = least + row % range
            for (i = 0; i < n; i++) {
                state = (state * 1103515245 + 12345) % 2147483648
                text = text (i ? " " : "") word[1 + int(state / 65536) % 12]
            }
            print text "\t" word[1 + row % 12] "\t" word[1 + row % 7]
        }
    }'
}
