#compdef veratune
_veratune() {
	local -a line candidates
	line=("${(@)words[1,CURRENT-1]}")
	[[ $words[CURRENT] == -* ]] && line+=("$words[CURRENT]")
	candidates=(${(f)"$("${line[@]}" --generate-bash-completion 2>/dev/null)"})
	if (( $#candidates )); then
		compadd -a candidates
	else
		_files
	fi
}
compdef _veratune veratune
