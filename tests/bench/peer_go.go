// `/refresh` with net/http and golang-jwt.
package main

import (
	"encoding/json"
	"log"
	"net/http"
	"os"
	"time"

	"github.com/golang-jwt/jwt/v4"
)

var (
	accessSecret  = []byte(os.Getenv("ACCESS_TOKEN_SECRET"))
	refreshSecret = []byte(os.Getenv("REFRESH_TOKEN_SECRET"))
	parser        = jwt.NewParser(jwt.WithValidMethods([]string{"HS256"}))
)

func refreshKey(*jwt.Token) (interface{}, error) { return refreshSecret, nil }

// accessToken returns a new access token for the user of a good refresh token, "" if there is none.
func accessToken(request *http.Request) string {
	cookie, err := request.Cookie("jwt")
	if err != nil {
		return ""
	}
	claims := jwt.MapClaims{}
	if _, err := parser.ParseWithClaims(cookie.Value, claims, refreshKey); err != nil {
		return ""
	}
	now := time.Now().Unix()
	fresh := jwt.MapClaims{"username": claims["username"], "iat": now, "exp": now + 600}
	token, err := jwt.NewWithClaims(jwt.SigningMethodHS256, fresh).SignedString(accessSecret)
	if err != nil {
		return ""
	}
	return token
}

func answer(writer http.ResponseWriter, status int, values map[string]string) {
	writer.Header().Set("Content-Type", "application/json")
	writer.WriteHeader(status)
	json.NewEncoder(writer).Encode(values)
}

func refresh(writer http.ResponseWriter, request *http.Request) {
	if token := accessToken(request); request.Method == http.MethodPost && token != "" {
		answer(writer, http.StatusOK, map[string]string{"accessToken": token})
	} else {
		answer(writer, http.StatusNotAcceptable, map[string]string{"message": "Unauthorized"})
	}
}

func main() {
	http.HandleFunc("/refresh", refresh)
	log.Fatal(http.ListenAndServe("127.0.0.1:"+os.Getenv("PORT"), nil))
}
